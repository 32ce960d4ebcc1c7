/* SPDX-License-Identifier: MIT
 *
 * A LibOS's process shuts itself in: namespaces, a root of read-only binds, another user, no privileges, a seccomp filter.
 * Each line stands on its own, so that one that fails to hold leaves the others. Reference: ARCHITECTURE.md, Trust; seccomp(2), pivot_root(2).
 */
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <fcntl.h>
#include <unistd.h>

#include "exo_kernel.h"

#if defined(__x86_64__)
#define EXO_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define EXO_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#error "exonet: no seccomp filter for this architecture"
#endif

static int32_t done(int result) { return result == 0 ? 0 : EXO_E_SYSTEM; }

enum { CAPABILITY_WORDS = _LINUX_CAPABILITY_U32S_3 };

int32_t exo_isolate_possible(void) {
    static const int needed[] = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETUID, CAP_SETGID, CAP_SETPCAP};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct held[CAPABILITY_WORDS] = {{0}};
    if (geteuid() != 0 || syscall(SYS_capget, &header, held) != 0) return 0;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!(held[needed[i] / 32].effective >> (needed[i] % 32) & 1)) return 0;
    return 1;
}

static int drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[CAPABILITY_WORDS] = {{0}};
    return (int)syscall(SYS_capset, &header, none);
}

/* Root and working directory become the top of our mount namespace: out of a chroot, whose root need not be a mount point, while
 * propagation and pivot_root ask for one. setns(2) does it, to the namespace that we are in. */
static int go_to_top(void) {
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (self < 0) return -1;
    int result = setns(self, CLONE_NEWNS);
    close(self);
    return result;
}

int32_t exo_isolate_namespaces(void) {
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0) return EXO_E_SYSTEM;
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return EXO_E_SYSTEM;
    /* All of it, or unmounting the old root would reach the mounts that the host shares; then back to where our paths hold. */
    int result = go_to_top() != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ? -1 : 0;
    if (result == 0 && (fchdir(root) != 0 || chroot(".") != 0)) result = -1;
    close(root);
    return done(result);
}

int32_t exo_isolate_root_begin(const char *path) {
    return done(mount("exonet", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m"));
}

int32_t exo_isolate_bind(const char *source, const char *target, int32_t devices) {
    if (mount(source, target, NULL, MS_BIND, NULL) != 0) return EXO_E_SYSTEM;
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | (devices ? 0 : MS_NODEV);
    return done(mount(NULL, target, NULL, flags, NULL));
}

int32_t exo_isolate_root_enter(const char *path) {
    if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) != 0) return EXO_E_SYSTEM;
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return EXO_E_SYSTEM;
    int result = go_to_top() != 0 || fchdir(root) != 0 ? -1 : 0;
    close(root);
    /* The old root is stacked on the new one and detached from there: pivot_root(2), "new_root and put_old may be the same". */
    if (result != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0) return EXO_E_SYSTEM;
    return done(chdir("/"));
}

int32_t exo_isolate_identity(uint32_t uid, uint32_t gid) {
    for (unsigned long capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) return EXO_E_SYSTEM;
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0) return EXO_E_SYSTEM;
    return done(setresuid(uid, uid, uid));
}

void exo_isolate_terminal(void) {
    int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0) return;
    (void)ioctl(terminal, TIOCNOTTY);
    close(terminal);
}

int32_t exo_isolate_process(void) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return EXO_E_SYSTEM;
    if (drop_capabilities() != 0) return EXO_E_SYSTEM;
    return done(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* Calls that are allowed whatever their arguments. */
static const int allowed[] = {
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_close, SYS_close_range, SYS_lseek, SYS_fstat, SYS_newfstatat,
    SYS_statx, SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd, SYS_dup, SYS_dup3, SYS_pipe2,
    SYS_flock, SYS_fadvise64,
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_brk, SYS_membarrier,
    SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_shutdown, SYS_getsockopt, SYS_getsockname, SYS_getpeername,
    SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
    SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_sched_yield, SYS_nanosleep, SYS_gettimeofday, SYS_times, SYS_getrusage,
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigsuspend, SYS_sigaltstack,
    SYS_restart_syscall, SYS_exit, SYS_exit_group,
    SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid,
    SYS_getrandom, SYS_uname, SYS_sysinfo,
#if defined(__x86_64__)
    SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_dup2, SYS_pipe, SYS_poll, SYS_select, SYS_epoll_create, SYS_epoll_wait,
    SYS_time, SYS_arch_prctl,
#endif
};

/* Calls that nothing but an attack makes: the process dies. */
static const int deadly[] = {
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_userfaultfd, SYS_bpf, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, SYS_kexec_load,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_perf_event_open, SYS_add_key, SYS_request_key, SYS_keyctl,
    SYS_swapon, SYS_swapoff, SYS_reboot, SYS_open_by_handle_at, SYS_pidfd_getfd,
};

enum { EXO_FILTER_MAX = 2 * (sizeof allowed + sizeof deadly) / sizeof(int) + 256 };

struct program {
    struct sock_filter code[EXO_FILTER_MAX];
    unsigned short n;
};

static void emit(struct program *p, struct sock_filter instruction) { p->code[p->n++] = instruction; }

static void load(struct program *p, size_t offset) { emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset)); }

static void answer(struct program *p, uint32_t action) { emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action)); }

/* Skips `over` instructions unless the accumulator equals k. */
static void unless_equal(struct program *p, uint32_t k, uint8_t over) {
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, over));
}

/* call nr: allowed where (low word of argument & mask) == value, else EPERM. */
static void allow_where(struct program *p, int nr, unsigned argument, uint32_t mask, uint32_t value) {
    unless_equal(p, (uint32_t)nr, 5);
    load(p, offsetof(struct seccomp_data, args) + 8 * argument);
    emit(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
    unless_equal(p, value, 1);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, SECCOMP_RET_ERRNO | EPERM);
}

/* call nr: allowed where the low word of argument is one of these; else it fails so. */
static void allow_or_fail(struct program *p, int nr, unsigned argument, const uint32_t *values, uint8_t n, uint32_t error) {
    unless_equal(p, (uint32_t)nr, (uint8_t)(2 * n + 2));
    load(p, offsetof(struct seccomp_data, args) + 8 * argument);
    for (uint8_t i = 0; i < n; i++) {
        unless_equal(p, values[i], 1);
        answer(p, SECCOMP_RET_ALLOW);
    }
    answer(p, SECCOMP_RET_ERRNO | error);
}

static void allow_these(struct program *p, int nr, unsigned argument, const uint32_t *values, uint8_t n) {
    allow_or_fail(p, nr, argument, values, n, EPERM);
}

static void allow_ioctls(struct program *p) {
    static const uint32_t requests[] = {FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS};
    allow_these(p, SYS_ioctl, 1, requests, sizeof requests / sizeof *requests);
}

/* Not F_SETOWN and F_SETSIG: who owns a descriptor is sent signals. */
static void allow_fcntls(struct program *p) {
    static const uint32_t commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW,
                                        F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS};
    allow_these(p, SYS_fcntl, 1, commands, sizeof commands / sizeof *commands);
}

/* Not those with priority inheritance: the word names a thread, of any process, and the answer tells whether it lives. */
static void allow_futexes(struct program *p) {
    static const uint32_t operations[] = {FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP, FUTEX_WAIT_BITSET,
                                          FUTEX_WAKE_BITSET};
    enum { KINDS = sizeof operations / sizeof *operations, FORMS = 4 };
    uint32_t allowed_now[KINDS * FORMS];
    for (uint8_t i = 0; i < KINDS * FORMS; i++)
        allowed_now[i] = operations[i / FORMS] | (i & 1 ? FUTEX_PRIVATE_FLAG : 0) | (i & 2 ? FUTEX_CLOCK_REALTIME : 0);
    allow_these(p, SYS_futex, 1, allowed_now, KINDS * FORMS);
}

/* What takes a process or its clock tells of others whether they live and what they used: only of oneself, therefore. The kernel's process
 * and LibOSes are of one session, in which SIGCONT needs no permission. A clock below zero names a process; -6 and -2 are one's own. */
static void allow_of_oneself(struct program *p) {
    const uint32_t own[] = {0, (uint32_t)getpid()};
    static const int clocks[] = {SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep};
    static const uint32_t known[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
                                     CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI, (uint32_t)-6, (uint32_t)-2};
    allow_these(p, SYS_tgkill, 0, own + 1, 1);
    allow_or_fail(p, SYS_sched_getaffinity, 0, own, 2, ENOSYS);   /* of an own thread pthread_getattr_np(3) asks so, and does without */
    allow_these(p, SYS_prlimit64, 0, own, 2);
    allow_these(p, SYS_get_robust_list, 0, own, 1);
    allow_futexes(p);
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++)
        allow_these(p, clocks[i], 0, known, sizeof known / sizeof *known);
}

static void build(struct program *p) {
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, EXO_AUDIT_ARCH, 1, 0));
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    /* The x32 numbers: the same calls under other names. */
    emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        unless_equal(p, (uint32_t)allowed[i], 1);
        answer(p, SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
        unless_equal(p, (uint32_t)deadly[i], 1);
        answer(p, SECCOMP_RET_KILL_PROCESS);
    }
    /* glibc falls back to clone(2), whose flags a filter can read. Threads only. */
    unless_equal(p, SYS_clone3, 1);
    answer(p, SECCOMP_RET_ERRNO | ENOSYS);
    allow_where(p, SYS_clone, 0, CLONE_THREAD | CLONE_VM | CLONE_NEWUSER, CLONE_THREAD | CLONE_VM);
    /* O_TMPFILE without O_DIRECTORY, which is only its other half. */
    allow_where(p, SYS_openat, 2, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY), O_RDONLY);
#if defined(__x86_64__)
    allow_where(p, SYS_open, 1, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY), O_RDONLY);
#endif
    allow_where(p, SYS_socketpair, 0, UINT32_MAX, AF_UNIX);
    allow_ioctls(p);
    allow_fcntls(p);
    allow_of_oneself(p);
    answer(p, SECCOMP_RET_ERRNO | EPERM);
}

int32_t exo_isolate_seccomp(void) {
    struct program program = {.n = 0};
    build(&program);
    struct sock_fprog filter = {.len = program.n, .filter = program.code};
    return done((int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter));
}

int32_t exo_timer_open(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return fd < 0 ? EXO_E_SYSTEM : fd;
}

int32_t exo_timer_set(int32_t fd, uint64_t delay_ns) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(delay_ns / 1000000000u), .tv_nsec = (long)(delay_ns % 1000000000u)}};
    return done(timerfd_settime(fd, 0, &when, NULL));
}
