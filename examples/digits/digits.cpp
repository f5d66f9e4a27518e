// Trains a GRU in C++ that reads the 8 x 8 digits of scikit-learn row by row, and names the digit
// after the last one.
//
//     digits FILE [EPOCHS]
//
// FILE has 64 pixels and a class in each line (write_digits.py). Prints the loss of each epoch and
// how many digits of the last fifth, which it did not train on, are named rightly; the exit status
// is 1 if that is less than nine of ten.
#include <bptt/bptt.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kRows = 8, kPixels = 8, kHidden = 48, kClasses = 10, kBatch = 64;

struct Digits {
  std::vector<float> pixels;  // (N, 64)
  std::vector<int> classes;   // (N)
};

Digits read_digits(const char* path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
  Digits digits;
  for (float value; file >> value;) {
    digits.pixels.push_back(value / 16);
    for (std::size_t i = 1; i < kRows * kPixels && file >> value; ++i) {
      digits.pixels.push_back(value / 16);
    }
    int label = 0;
    file >> label;
    digits.classes.push_back(label);
  }
  return digits;
}

// Adam (Kingma and Ba, 2015), of one array.
class Adam {
 public:
  explicit Adam(std::size_t size) : mean_(size), square_(size) {}

  void update(std::vector<float>& w, const std::vector<float>& gradient) {
    ++step_;
    const float correct_mean = 1 - std::pow(0.9F, step_), correct = 1 - std::pow(0.999F, step_);
    for (std::size_t i = 0; i < w.size(); ++i) {
      mean_[i] = 0.9F * mean_[i] + 0.1F * gradient[i];
      square_[i] = 0.999F * square_[i] + 0.001F * gradient[i] * gradient[i];
      w[i] -= 5e-3F * (mean_[i] / correct_mean) / (std::sqrt(square_[i] / correct) + 1e-8F);
    }
  }

 private:
  std::vector<float> mean_, square_;
  float step_ = 0;
};

class Network {
 public:
  Network() : gru_("gru", kPixels, kHidden), w_o_(kClasses * kHidden), dw_o_(w_o_.size()) {
    std::mt19937 random(0);
    std::uniform_real_distribution<float> draw(-1 / std::sqrt(float{kHidden}),
                                               1 / std::sqrt(float{kHidden}));
    const auto fill = [&](std::vector<float>& w) {
      for (float& value : w) value = draw(random);
      optimizers_.emplace_back(w.size());
    };
    gru_.weights.for_each(fill);
    fill(w_o_);
  }

  // Loss of some digits, and how many are named rightly; one update of the weights if `train`.
  std::pair<double, int> run(const Digits& digits, const std::vector<std::size_t>& which,
                             bool train) {
    const std::size_t batch = which.size();
    std::vector<float> x(kRows * batch * kPixels), dh(batch * kHidden);
    for (std::size_t t = 0; t < kRows; ++t) {
      for (std::size_t b = 0; b < batch; ++b) {
        std::copy_n(&digits.pixels[(which[b] * kRows + t) * kPixels], kPixels,
                    &x[(t * batch + b) * kPixels]);
      }
    }
    gru_.forward(x.data(), kRows, static_cast<std::int64_t>(batch));
    std::fill(dw_o_.begin(), dw_o_.end(), 0.0F);
    double loss = 0;
    int right = 0;
    for (std::size_t b = 0; b < batch; ++b) {
      right += read_out(&gru_.last_h()[b * kHidden], digits.classes[which[b]], batch,
                        &dh[b * kHidden], loss);
    }
    if (train) {
      gru_.backward(nullptr, dh.data());
      update();
    }
    return {loss / static_cast<double>(batch), right};
  }

 private:
  // Softmax and cross-entropy of one digit; adds its part of dW_o and writes its dh.
  bool read_out(const float* h, int label, std::size_t batch, float* dh, double& loss) {
    float o[kClasses], sum = 0;
    for (std::size_t k = 0; k < kClasses; ++k) {
      o[k] = std::inner_product(h, h + kHidden, &w_o_[k * kHidden], 0.0F);
    }
    const float most = *std::max_element(o, o + kClasses);
    const bool right = o[label] == most;
    for (float& value : o) sum += value = std::exp(value - most);
    loss -= std::log(o[label] / sum);
    for (std::size_t k = 0; k < kClasses; ++k) {
      const float d = (o[k] / sum - (static_cast<int>(k) == label)) / static_cast<float>(batch);
      for (std::size_t i = 0; i < kHidden; ++i) {
        dh[i] += d * w_o_[k * kHidden + i];
        dw_o_[k * kHidden + i] += d * h[i];
      }
    }
    return right;
  }

  void update() {
    auto optimizer = optimizers_.begin();
    auto& w = gru_.weights;
    auto& d = gru_.gradients;
    (optimizer++)->update(w.w_ih, d.w_ih);
    (optimizer++)->update(w.w_hh, d.w_hh);
    (optimizer++)->update(w.b_ih, d.b_ih);
    (optimizer++)->update(w.b_hh, d.b_hh);
    optimizer->update(w_o_, dw_o_);
  }

  bptt::Recurrent<float> gru_;
  std::vector<float> w_o_, dw_o_;  // (10, H)
  std::vector<Adam> optimizers_;
};

}  // namespace

int main(int count, char** arguments) try {
  if (count < 2) {
    std::fprintf(stderr, "usage: digits FILE [EPOCHS]\n");
    return 2;
  }
  const Digits digits = read_digits(arguments[1]);
  const int epochs = count > 2 ? std::atoi(arguments[2]) : 12;
  std::vector<std::size_t> order(digits.classes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937 random(1);
  std::shuffle(order.begin(), order.end(), random);
  const auto cut = order.begin() + static_cast<std::ptrdiff_t>(order.size() / 5 * 4);
  const std::vector<std::size_t> test(cut, order.end());
  order.erase(cut, order.end());
  Network network;
  for (int epoch = 1; epoch <= epochs; ++epoch) {
    std::shuffle(order.begin(), order.end(), random);
    double loss = 0;
    std::size_t batches = 0;
    for (std::size_t i = 0; i + kBatch <= order.size(); i += kBatch, ++batches) {
      const auto first = order.begin() + static_cast<std::ptrdiff_t>(i);
      loss += network.run(digits, {first, first + kBatch}, true).first;
    }
    std::printf("epoch %2d  loss %.4f\n", epoch, loss / static_cast<double>(batches));
  }
  const double right = network.run(digits, test, false).second / static_cast<double>(test.size());
  std::printf("%.1f %% of %zu other digits are named rightly\n", 100 * right, test.size());
  return right < 0.9;
} catch (const std::exception& error) {
  std::fprintf(stderr, "digits: %s\n", error.what());
  return 2;
}
