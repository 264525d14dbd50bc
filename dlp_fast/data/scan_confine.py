"""What a child process of the scan gives up before it decodes: memory, files, the network, and system calls.

Loaded by scan_worker.py alone, in the child, without torch.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource

# of linux/prctl.h, linux/sched.h and asm/unistd.h
_NO_NEW_PRIVILEGES, _NEW_USER, _NEW_NETWORK = 38, 0x10000000, 0x40000000
_THREAD, _X32 = 0x00010000, 0x40000000
MOST_FILES = 64
"""Files that a child may have open at once; it needs six."""

_OPENS = {"open": 1, "openat": 2}
"""Which argument has the flags."""
_SIGNALS = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
"""The first argument is whom it is sent to."""
REFUSED = (
    *("execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "tkill"),
    *(
        "pidfd_open",
        "pidfd_send_signal",
        "pidfd_getfd",
        "kcmp",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "chroot",
    ),
    *("socket", "socketpair", "connect", "bind", "listen", "sendto", "sendmsg", "io_uring_setup", "bpf"),
    *("perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "memfd_create"),
    *(
        "creat",
        "truncate",
        "unlink",
        "unlinkat",
        "rename",
        "renameat",
        "renameat2",
        "mkdir",
        "mkdirat",
        "rmdir",
    ),
    *(
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "mknod",
        "mknodat",
        "chmod",
        "fchmod",
        "fchmodat",
        "fchmodat2",
    ),
    *("chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "utime", "utimes"),
    *("utimensat", "futimesat", "removexattr", "lremovexattr", "fremovexattr"),
)
"""System calls that no decoder needs: programs, other processes, sockets, and whatever changes a file or a folder."""


def confine(memory_bytes: int) -> None:
    """Bound what a decoder that has been taken in can use; for good. `memory_bytes` 0: as much as there is."""
    leave_network()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    filter_calls()


def leave_network() -> None:
    """Give up the network, and rights that a program could gain, where the system lets a process do so."""
    try:
        system = ctypes.CDLL(None)
        system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        # root needs no user namespace, and in one would lose the right to read the files of others
        system.unshare(_NEW_NETWORK if os.geteuid() == 0 else _NEW_NETWORK | _NEW_USER)
    except (OSError, AttributeError):
        pass  # no Linux


def filter_calls() -> None:
    """Let the system refuse `REFUSED`, files opened for writing, and signals to others, where seccompy is installed."""
    try:
        import seccompy
    except ImportError:
        return
    try:
        calls = seccompy.Filter(flags=seccompy.FilterFlag.TSYNC)
        for name in REFUSED:
            _refuse(seccompy, calls, name)
        flags = (
            (os.O_ACCMODE, os.O_WRONLY),
            (os.O_ACCMODE, os.O_RDWR),
            *((f, f) for f in (os.O_CREAT, os.O_TRUNC)),
        )
        for name, at in _OPENS.items():
            for mask, value in flags:
                _refuse(seccompy, calls, name, [(at, seccompy.CmpOp.MASKED_EQ, value, mask)])
        for name in _SIGNALS:  # abort() sends one to this process itself
            _refuse(seccompy, calls, name, [(0, seccompy.CmpOp.NE, os.getpid())])
        _refuse(seccompy, calls, "prlimit64", [(0, seccompy.CmpOp.NE, 0)])
        _refuse(seccompy, calls, "clone", [(0, seccompy.CmpOp.MASKED_EQ, 0, _THREAD)])
        for name in ("clone3", "openat2"):  # their flags lie in memory: libraries then take the older call
            _refuse(seccompy, calls, name, error=errno.ENOSYS)
        calls.load()
    except (OSError, ValueError):
        pass  # a kernel or a processor without it


def _refuse(seccompy, calls, name: str, arguments=None, error: int = errno.EPERM) -> None:
    """By its name, and on x86-64 under the number of its 32-bit sister too; a processor may lack a call."""
    try:
        number = seccompy.syscall_nr(name)
    except ValueError:
        return
    for one in (number, number | _X32) if seccompy.arch() == "x86_64" else (number,):
        calls.errno(one, error, args=arguments)
