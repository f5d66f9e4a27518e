"""The limits of a container hold: CPU quota and memory of the process's control groups."""

from __future__ import annotations

from pathlib import Path

import bptt
import numpy as np
import pytest
from bptt import control_groups, threads

# A line of /proc/self/mountinfo: group that is mounted, mount point, file system, its options.
MOUNT = "31 23 0:28 {} {} rw,relatime shared:9 - {} none rw,{}\n"
UNIFIED = MOUNT.format("/", "/sys/fs/cgroup", "cgroup2", "nsdelegate")
NO_LIMIT_V1 = str(2**63 - 4096)
GIB = 1 << 30


def system(folder: Path, own: str, mounts: str, files: dict[str, str]) -> str:
    """A fake root of the file system; `files` are below its /sys/fs/cgroup."""
    written = {f"sys/fs/cgroup/{name}": text + "\n" for name, text in files.items()}
    written |= {"proc/self/cgroup": own, "proc/self/mountinfo": mounts}
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("limit", "quota"),
    [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5), ("400000 50000", 8)],
)
def test_the_quota_of_version_2(limit: str, quota: float | None, tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job\n", UNIFIED, {"job/cpu.max": limit})
    assert control_groups.cpu_quota(root) == quota


@pytest.mark.parametrize(("limit", "quota"), [("-1", None), ("150000", 1.5), ("0", None)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_version_1(
    limit: str, quota: float | None, controllers: str, tmp_path: Path
) -> None:
    root = system(
        tmp_path,
        f"5:{controllers}:/job\n4:cpuset:/other\n1:name=systemd:/init\n",
        MOUNT.format("/", "/sys/fs/cgroup/cpuset", "cgroup", "cpuset")
        + MOUNT.format("/", "/sys/fs/cgroup/cpu", "cgroup", controllers),
        {
            "cpu/job/cpu.cfs_quota_us": limit,
            "cpu/job/cpu.cfs_period_us": "100000",
            "cpu/other/cpu.cfs_quota_us": "1000",
            "cpu/other/cpu.cfs_period_us": "100000",
        },
    )
    assert control_groups.cpu_quota(root) == quota


def test_the_tightest_limit_on_the_way_to_the_root_counts_and_no_others(tmp_path: Path) -> None:
    files = {
        "cpu.max": "max 100000",
        "a/cpu.max": "200000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "300000 100000",
        "a/b/c/child/cpu.max": "1000 100000",
        "sister/cpu.max": "1000 100000",
        "a/memory.max": str(3 * GIB),
        "a/b/memory.max": str(5 * GIB),
        "a/b/c/memory.max": "max",
    }
    root = system(tmp_path, "0::/a/b/c\n", UNIFIED, files)
    assert control_groups.cpu_quota(root) == 2
    assert control_groups.free_memory(root) == 3 * GIB


@pytest.mark.parametrize(
    ("own", "mounted"),
    [
        ("/docker/1f", "/docker/1f"),
        ("/", "/"),
        ("/", "/docker/1f"),
        ("/../x", "/"),
        ("/x", "/.."),
    ],
    ids=["host's path", "own namespace", "mount of the host", "moved out", "mount from above"],
)
def test_a_container_sees_its_own_group_as_the_root(own: str, mounted: str, tmp_path: Path) -> None:
    mounts = MOUNT.format(mounted, "/sys/fs/cgroup", "cgroup2", "")
    root = system(tmp_path, f"0::{own}\n", mounts, {"cpu.max": "250000 100000"})
    assert control_groups.cpu_quota(root) == 2.5


def test_a_group_beside_the_mounted_one_is_not_below_it(tmp_path: Path) -> None:
    mounts = MOUNT.format("/docker/1f", "/sys/fs/cgroup", "cgroup2", "")
    quotas = {"cpu.max": "250000 100000", "2/cpu.max": "100000 100000"}
    root = system(tmp_path, "0::/docker/1f2\n", mounts, quotas)
    assert control_groups.cpu_quota(root) == 2.5


def test_both_versions_count_where_both_are_mounted(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "1:cpu:/\n0::/\n",
        MOUNT.format("/", "/sys/fs/cgroup/cpu", "cgroup", "cpu")
        + MOUNT.format("/", "/sys/fs/cgroup/unified", "cgroup2", ""),
        {
            "cpu/cpu.cfs_quota_us": "300000",
            "cpu/cpu.cfs_period_us": "100000",
            "unified/cpu.max": "200000 100000",
        },
    )
    assert control_groups.cpu_quota(root) == 2


def test_names_with_blanks_and_colons_are_read(tmp_path: Path) -> None:
    mounts = MOUNT.format("/", r"/sys/fs/cgroup/my\040groups", "cgroup2", "")
    root = system(tmp_path, "0::/a:b c\n", mounts, {"my groups/a:b c/cpu.max": "100000 100000"})
    assert control_groups.cpu_quota(root) == 1


def test_free_memory_of_version_2_is_the_limit_less_what_is_used_but_for_files(
    tmp_path: Path,
) -> None:
    files = {
        "job/memory.max": str(4 * GIB),
        "job/memory.current": str(3 * GIB),
        "job/memory.stat": f"anon {GIB}\nactive_file {GIB // 2}\ninactive_file {GIB}\nshmem 7",
    }
    root = system(tmp_path, "0::/job\n", UNIFIED, files)
    assert control_groups.free_memory(root) == 4 * GIB - 3 * GIB + GIB * 3 // 2


def test_free_memory_of_version_1_is_that_of_the_group_with_those_below_it(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:memory:/job\n",
        MOUNT.format("/", "/sys/fs/cgroup/memory", "cgroup", "memory"),
        {
            "memory/memory.limit_in_bytes": NO_LIMIT_V1,
            "memory/job/memory.limit_in_bytes": str(2 * GIB),
            "memory/job/memory.usage_in_bytes": str(GIB),
            "memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}",
        },
    )
    assert control_groups.free_memory(root) == GIB + GIB // 4


def test_a_group_beyond_its_limit_has_nothing_free(tmp_path: Path) -> None:
    files = {"memory.max": "100", "memory.current": "300"}
    assert control_groups.free_memory(system(tmp_path, "0::/\n", UNIFIED, files)) == 0


@pytest.mark.parametrize(
    ("own", "mounts", "files"),
    [
        ("", "", {}),
        ("0::/\n", UNIFIED, {}),
        ("nonsense\n", UNIFIED, {"cpu.max": "1 1"}),
        ("0::/\n", "nonsense\n", {"cpu.max": "1 1"}),
        ("0::/\n", UNIFIED, {"cpu.max": "", "memory.max": ""}),
        ("0::/\n", UNIFIED, {"cpu.max": "100000", "memory.max": "lots"}),
        ("0::/\n", UNIFIED, {"cpu.max": "1 many", "memory.max": "max"}),
        ("0::/\n", UNIFIED, {"cpu.max": "1 0", "memory.max": "9", "memory.stat": "active_file"}),
    ],
)
def test_what_cannot_be_read_limits_nothing(
    own: str, mounts: str, files: dict[str, str], tmp_path: Path
) -> None:
    root = system(tmp_path, own, mounts, files)
    assert control_groups.cpu_quota(root) is None
    assert control_groups.free_memory(root) is None


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert control_groups.cpu_quota(str(tmp_path)) is None
    assert control_groups.free_memory(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("quota", "expected"), [(None, 8), (0.25, 1), (1.0, 1), (1.01, 2), (2.5, 3), (64.0, 8)]
)
def test_threads_follow_the_quota_rounded_up_and_the_cpus(
    quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(control_groups, "cpu_quota", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads._initial_num_threads() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads._initial_num_threads() == 5


def test_what_does_not_fit_the_memory_of_the_group_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_groups, "free_memory", lambda: 1 << 20)
    params = bptt.init_params("tanh", input_size=1, hidden_size=1024, rng=0)
    x = np.broadcast_to(np.float32(0), (2048, 64, 1))
    with pytest.raises(MemoryError, match=r"needs [\d.]+ GiB, but 0\.00 GiB are available"):
        bptt.forward("tanh", params, x)
