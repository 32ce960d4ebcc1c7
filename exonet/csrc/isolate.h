/* SPDX-License-Identifier: MIT
 *
 * What a LibOS's process does to itself before any LibOS code is loaded, in the order of these functions. They act on the
 * calling process, for good; Python's os module has none of them. 0, or EXO_E_SYSTEM with errno set.
 */

/* 1: we are root with every capability that the rest takes; 0: not, as in most containers. */
int32_t exo_isolate_possible(void);
/* Gives up the controlling terminal, which it shares with the kernel, and which only a session's leader could take again. */
void exo_isolate_terminal(void);
/* New mount, network, IPC and UTS namespaces; mounts made here stay here. Needs root. */
int32_t exo_isolate_namespaces(void);
/* An empty tmpfs at path, on which the new root is built. */
int32_t exo_isolate_root_begin(const char *path);
/* source appears at target, read-only, without set-uid; devices: 1 for a device node that may be opened. */
int32_t exo_isolate_bind(const char *source, const char *target, int32_t devices);
/* path becomes the root, read-only; the old root is gone from this process. */
int32_t exo_isolate_root_enter(const char *path);
/* Another user for good: no supplementary groups, no capability left, none to be had from an exec. */
int32_t exo_isolate_identity(uint32_t uid, uint32_t gid);
/* Not dumpable, no capability, no new privileges, killed when the parent dies. To be repeated after a change of user. */
int32_t exo_isolate_process(void);
/* The seccomp allow-list: what an interpreter with its descriptors already open needs. Other calls fail with EPERM; those that only
 * an attack would make (ptrace, mount, bpf, io_uring, ...) kill the process. */
int32_t exo_isolate_seccomp(void);

/* A timer descriptor for the kernel's poll set, readable delay_ns after exo_timer_set; 0 clears it. Returns the descriptor. */
int32_t exo_timer_open(void);
int32_t exo_timer_set(int32_t fd, uint64_t delay_ns);
