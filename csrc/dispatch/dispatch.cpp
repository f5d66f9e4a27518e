#include "dispatch/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bptt {

#if defined(__x86_64__)
namespace avx512 {
extern const KernelTable kTable;
}
namespace avx2 {
extern const KernelTable kTable;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable kTable;
}
#endif
namespace generic {
extern const KernelTable kTable;
}

namespace {

struct Row {
  const KernelTable* table;
  bool (*runs_here)();
};

// Best first. A new ISA is one row here, one isa/ file and one line of CMake.
const Row kRows[] = {
#if defined(__x86_64__)
    {&avx512::kTable,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
     }},
    {&avx2::kTable, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__)
    {&neon::kTable, [] { return true; }},  // part of the baseline
#endif
    {&generic::kTable, [] { return true; }},
};

std::atomic<const KernelTable*> active{nullptr};

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

const KernelTable& find(const std::string& name, const std::string& asker) {
  bool built = false;
  for (const Row& row : kRows) {
    if (lower_case(name) != row.table->name) continue;
    built = true;
    if (row.runs_here()) return *row.table;
  }
  std::string supported;
  for (const std::string& isa : supported_isas()) {
    supported += (supported.empty() ? "" : ", ") + isa;
  }
  throw std::invalid_argument(asker + ": expected one of " + supported + ", got '" + name + "'" +
                              (built ? ", which this CPU does not support" : ""));
}

const KernelTable& choose() {
  const char* wanted = std::getenv("BPTT_ISA");
  if (wanted && *wanted) return find(wanted, "BPTT_ISA");
  for (const Row& row : kRows) {
    if (row.runs_here()) return *row.table;
  }
  return generic::kTable;
}

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Row& row : kRows) {
    if (row.runs_here()) names.emplace_back(row.table->name);
  }
  return names;
}

const KernelTable& kernel_table() {
  const KernelTable* table = active.load(std::memory_order_acquire);
  if (table) return *table;
  const KernelTable& chosen = choose();
  // Not if another thread has selected one meanwhile.
  const bool is_first = active.compare_exchange_strong(table, &chosen, std::memory_order_acq_rel);
  return is_first ? chosen : *table;
}

// Those of the table that is in every build.
std::span<const Cell<float>> registered_cells() { return generic::kTable.f32.cells; }

std::optional<CellId> find_cell(const std::string& name) {
  const auto cells = registered_cells();
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (name == cells[i].name) return static_cast<CellId>(i);
  }
  return {};
}

const CellShape& shape_of(CellId cell) {
  return registered_cells()[static_cast<std::size_t>(cell)].shape;
}

Cpu this_cpu() {
#if defined(__x86_64__)
  const bool amd = __builtin_cpu_is("amd"), intel = __builtin_cpu_is("intel");
  const bool avx512 = __builtin_cpu_supports("avx512f");
  unsigned signature = 0, b = 0, c = 0, d = 0;
  if ((!amd && !intel) || !__get_cpuid(1, &signature, &b, &c, &d))
    return {Vendor::other, 0, avx512};
  const unsigned base = signature >> 8 & 0xf, extended = signature >> 20 & 0xff;
  const int family = static_cast<int>(base == 0xf ? base + extended : base);
  return {amd ? Vendor::amd : Vendor::intel, family, avx512};
#else
  return {Vendor::other, 0, false};
#endif
}

void select_isa(const std::string& name) {
  active.store(&find(name, "isa"), std::memory_order_release);
}

}  // namespace bptt
