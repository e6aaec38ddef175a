"""The program that runs inside the sandbox: locks itself down, then runs untrusted code.

Run by `sandbox.py` as a script in a bare interpreter, never imported: it must start fast and may
use the standard library only. It reads its job from the socket whose descriptor is its argument,
and writes the job's token back only after every test has run.

Two processes: the first makes the namespaces and watches the second, which drops every privilege
and runs the code. Whatever the kernel or the user's rights refuse is left out; the resource limits
always hold.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

NOBODY = 65534
TMPFS_BYTES = 16 << 20
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1

libc = ctypes.CDLL(None)


def kernel(name: str, *arguments: object) -> bool:
    """Makes a system call of libc's; false where the kernel refuses or the system has none."""
    function = getattr(libc, name, None)
    return function is not None and function(*arguments) == 0


def receive(channel: int, size: int) -> bytes:
    """Reads exactly `size` bytes, no more: what follows must stay unread."""
    parts = []
    while size:
        part = os.read(channel, min(size, 1 << 16))
        if not part:
            os._exit(1)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_number(channel: int) -> int:
    """Reads eight bytes as a number."""
    return int.from_bytes(receive(channel, 8), "big")


def receive_text(channel: int) -> str:
    """Reads a length and a text of that length."""
    return receive(channel, receive_number(channel)).decode("utf-8", "surrogatepass")


def isolate(folder: str, own_users: bool) -> bool:
    """Enters namespaces of our own: no network, no other processes, a read-only file system.

    Args:
        folder: The one place that stays writable.
        own_users: Whether to do it without rights, through a user namespace.

    Returns:
        Whether the kernel allowed it; a fork then enters the process namespace.
    """
    user, group = os.getuid(), os.getgid()
    wanted = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWPID
    if not kernel("unshare", wanted | (CLONE_NEWUSER if own_users else 0)):
        return False
    if own_users:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)  # Root without rights may not; it then cannot make files.
    protect_files(folder)
    return True


def protect_files(folder: str) -> None:
    """Puts a small memory file system on `folder` and makes all others read-only."""
    if not kernel("mount", None, b"/", None, MS_REC | MS_PRIVATE, None):
        return
    place = os.fsencode(folder)
    options = f"size={TMPFS_BYTES},mode=0777".encode()
    if not kernel("mount", b"tmpfs", place, b"tmpfs", MS_NOSUID | MS_NODEV, options):
        return
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    locked = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    opened = (ctypes.c_uint64 * 4)(0, MOUNT_ATTR_RDONLY, 0, 0)
    if kernel("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, locked, 32):
        kernel("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, place, 0, opened, 32)


def keep_library_readable() -> None:
    """Lets an unprivileged user import a standard library that lies in root's home.

    The folders are opened while they still can be and reached through their descriptors.
    """
    places = {}
    for path in sys.path:
        with contextlib.suppress(OSError):  # An entry may not exist, or be an archive.
            places[path] = f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY)}"
    sys.path[:] = [places.get(path, path) for path in sys.path]
    for module in list(sys.modules.values()):
        folders = getattr(module, "__path__", None)
        if isinstance(folders, list):
            for index, folder in enumerate(folders):
                head, _, name = folder.rpartition("/")
                if head in places:
                    folders[index] = f"{places[head]}/{name}"


def drop_privileges() -> None:
    """Becomes an unprivileged user where it is root, and can never gain rights again."""
    if os.getuid() == 0:
        # A container may forbid it: the other limits stand.
        with contextlib.suppress(OSError):
            keep_library_readable()
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Changing the user clears these two: the right to write our own uid_map, and the death signal.
    kernel("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    kernel("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(seconds: int, memory: int) -> None:
    """Sets limits that cannot be raised again: no new process or thread at all, among others."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, TMPFS_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            value = min(value, ceiling)
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            if sys.platform == "linux":  # Elsewhere some limits do not exist.
                raise


def run(channel: int, program: str, tests: list[str]) -> None:
    """Runs the program, then the tests in its namespace; then, and only then, sends the token."""
    # Kept here because the program may replace any of them.
    leave, read, write, compiled, execute = os._exit, os.read, os.write, compile, exec
    size = 32
    try:
        os.environ.clear()
        module = type(sys)("candidate")
        sys.modules["candidate"] = module
        sys.argv[:] = [""]
        for source in (program, *tests):
            execute(
                compiled(source, "<candidate>", "exec", dont_inherit=True, optimize=0),
                module.__dict__,
            )
        write(channel, read(channel, size))
    finally:
        leave(0)


def watch(child: int, seconds: float) -> None:
    """Waits for the child; kills it, and with it its process namespace, when time is up."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    os.waitpid(child, 0)


def main() -> None:
    """Reads the job, locks down, runs it."""
    kernel("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    channel = int(sys.argv[1])
    seconds, wall_ms, memory = (receive_number(channel) for _ in range(3))
    folder = receive_text(channel)
    program, *tests = (receive_text(channel) for _ in range(receive_number(channel)))
    root = os.getuid() == 0
    if root:
        os.chmod(folder, 0o777)  # noqa: PTH101  (pathlib takes long to import)
    entered = root and isolate(folder, own_users=False)
    if not entered:
        drop_privileges()
        entered = isolate(folder, own_users=True)
    os.chdir(folder)
    if entered:
        child = os.fork()
        if child:
            os.close(channel)
            watch(child, wall_ms / 1000)
            os._exit(0)
    limit(seconds, memory)
    drop_privileges()
    run(channel, program, tests)


main()
