/**
 * Which system calls a sandbox may make, as the `linux.seccomp` section of an OCI bundle (runtime-spec 1.0.2).
 *
 * Three groups: allowed; refused with EPERM because they reach beyond a job (mounts, namespaces, keys, modules, clocks,
 * tracing of the kernel); everything else, so also what future kernels add, is ENOSYS, which libraries fall back from.
 * `clone3` and io_uring are ENOSYS for that reason: their arguments cannot be filtered.
 *
 * Also refused is what the kernel counts for the whole host and for no memory limit: asynchronous I/O contexts, netlink
 * messages nobody reads, huge pages. test/attacks has a program for each of them.
 */

const EPERM = 1
const EMFILE = 24
const SUCCESS = 0
const ENOSYS = 38
const EPROTONOSUPPORT = 93
const EAFNOSUPPORT = 97

const names = (text: string): ReadonlyArray<string> => text.split(/\s+/).filter((name) => name !== "")

const files = names(`
  access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
  fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fgetxattr flistxattr flock fremovexattr
  fsetxattr fstat fstatfs ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch
  inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr
  lstat mkdir mkdirat mknod mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
  read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat
  statfs statx symlink symlinkat sync_file_range tee truncate umask unlink unlinkat ustat utime utimensat utimes
  vmsplice write writev
`)

const memory = names(`
  brk get_mempolicy madvise membarrier mincore mlock mlock2 mlockall mprotect mremap mseal munlock munlockall
  munmap pkey_alloc pkey_free pkey_mprotect process_madvise remap_file_pages shmat shmctl shmdt
`)

const processes = names(`
  alarm arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid
  geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid
  gettid getuid ioprio_get ioprio_set kill pause pidfd_open pidfd_send_signal process_mrelease
  process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask
  rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
  sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
  sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area
  set_tid_address setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid setresuid setreuid
  setsid setuid sigaltstack tgkill tkill uname vfork wait4 waitid
`)

const waiting = names(`
  clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
  eventfd eventfd2 futex futex_requeue futex_wait futex_waitv futex_wake getitimer gettimeofday nanosleep pipe pipe2
  poll ppoll pselect6 select setitimer signalfd signalfd4 sysinfo time timer_create timer_delete timer_getoverrun
  timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times getrandom
`)

const talking = names(`
  accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open mq_timedreceive
  mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl semget semop semtimedop sendmmsg
  sendmsg sendto setsockopt shutdown landlock_add_rule landlock_create_ruleset landlock_restrict_self
`)

/** Known, and refused with EPERM: the program learns that it may not, not that the kernel is old. */
const forbidden = names(`
  acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark finit_module
  fsconfig fsmount fsopen fspick init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind
  memfd_secret migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
  open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root quotactl quotactl_fd reboot request_key
  set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sync syncfs sysfs
  syslog umount2 unshare uselib userfaultfd vhangup
`)

/**
 * Refused as if the user had all it may have, which programs answer by polling. The kernel counts inotify instances for
 * the maker of the user namespace too, who is the host's root: one job could leave the host with none (128 in all).
 */
const exhausted = ["inotify_init", "inotify_init1"]

/**
 * Done without the kernel. All that a job can write lies in memory, where these do nothing; but on a file of the host's
 * /usr, which it can only read, each would make the host's disk write out what it holds.
 */
const flushes = ["fsync", "fdatasync"]
const MS_SYNC = 4
/** Likewise: advice that nobody has to take, and that would throw the host's files out of memory. */
const POSIX_FADV_DONTNEED = 4

/** CLONE_NEWTIME and all other CLONE_NEW* flags of clone(2). */
const CLONE_NEW = 0x7E020080

const AF_UNIX = 1
/** AF_INET, AF_INET6: the sandbox's own loopback. */
const internetFamilies = [2, 10]
const SOCK_TYPE_MASK = 0xf
const SOCK_RAW = 3
/** SOCK_STREAM and SOCK_DGRAM with the protocols they imply, TCP, UDP: for any other the kernel would load modules. */
const internetTypes = [1, 2]
const internetProtocols = [0, 6, 17]
const IPPROTO_MPTCP = 262

/** Huge pages are the operator's, set aside for somebody, and no memory limit counts them. By call: argument and flag. */
const hugePages = [["mmap", 3, 0x40000], ["memfd_create", 1, 0x4], ["shmget", 2, 0x800]] as const

/** All limits of a process (RLIMIT_*) by number. */
const resources = Array.from({ length: 16 }, (_, number) => number)
const RLIMIT_CORE = 4

/** Would keep everybody else off the other threads of a core. */
const PR_SCHED_CORE = 62

/** PER_LINUX, ADDR_NO_RANDOMIZE (debuggers, sanitizers), and the query 0xffffffff. */
const personalities = [0, 0x0040000, 0xffffffff]

const equals = (value: number) => [{ index: 0, value, op: "SCMP_CMP_EQ" }]

/** Bits of one argument. The kernel takes an `int` from the lower half of a register, whatever the upper one holds. */
const bits = (index: number, mask: number, value: number) => ({
  index,
  value: mask,
  valueTwo: value,
  op: "SCMP_CMP_MASKED_EQ"
})
const INT = 0xffffffff
const int = (index: number, value: number) => bits(index, INT, value)

/** Every `int` but this one: those that agree with it down to some bit and differ in that. */
const intsOtherThan = (index: number, value: number) =>
  Array.from({ length: 32 }, (_, bit) => {
    const mask = INT - (2 ** bit - 1)
    const flipped = Math.floor(value / 2 ** bit) % 2 === 0 ? value + 2 ** bit : value - 2 ** bit
    return bits(index, mask, Math.floor(flipped / 2 ** bit) * 2 ** bit)
  })

/** The architecture's own calls only: 32-bit entry points are killed by libseccomp's default. */
const architectures: Readonly<Record<string, string>> = { x64: "SCMP_ARCH_X86_64", arm64: "SCMP_ARCH_AARCH64" }

/** `linux.seccomp` of an OCI bundle for `process.arch`; `undefined` for an architecture this profile was not made for. */
export const seccompProfile = (arch: string) => {
  const architecture = architectures[arch]
  if (architecture === undefined) return undefined
  const allow = "SCMP_ACT_ALLOW"
  const refuse = "SCMP_ACT_ERRNO"
  return {
    defaultAction: refuse,
    defaultErrnoRet: ENOSYS,
    architectures: [architecture],
    syscalls: [
      { names: [...files, ...memory, ...processes, ...waiting, ...talking], action: allow },
      { names: forbidden, action: refuse, errnoRet: EPERM },
      { names: exhausted, action: refuse, errnoRet: EMFILE },
      { names: flushes, action: refuse, errnoRet: SUCCESS },
      { names: ["msync"], action: allow, args: [bits(2, MS_SYNC, 0)] },
      { names: ["msync"], action: refuse, errnoRet: SUCCESS, args: [bits(2, MS_SYNC, MS_SYNC)] },
      ...[0, 1, 2, 3, 5].map((advice) => ({ names: ["fadvise64"], action: allow, args: [int(3, advice)] })),
      { names: ["fadvise64"], action: refuse, errnoRet: SUCCESS, args: [int(3, POSIX_FADV_DONTNEED)] },
      { names: ["socket", "socketpair"], action: allow, args: [int(0, AF_UNIX)] },
      {
        names: ["socket", "socketpair"],
        action: refuse,
        errnoRet: EAFNOSUPPORT,
        args: [{ index: 0, value: Math.max(...internetFamilies), op: "SCMP_CMP_GT" }]
      },
      ...internetFamilies.flatMap((family) => [
        ...internetTypes.flatMap((type) =>
          internetProtocols.map((protocol) => ({
            names: ["socket"],
            action: allow,
            args: [int(0, family), bits(1, SOCK_TYPE_MASK, type), int(2, protocol)]
          }))
        ),
        {
          names: ["socket"],
          action: refuse,
          errnoRet: EPERM,
          args: [int(0, family), bits(1, SOCK_TYPE_MASK, SOCK_RAW)]
        },
        {
          names: ["socket"],
          action: refuse,
          errnoRet: EPROTONOSUPPORT,
          args: [int(0, family), bits(1, SOCK_TYPE_MASK, 1), int(2, IPPROTO_MPTCP)]
        }
      ]),
      ...hugePages.flatMap(([name, index, flag]) => [
        { names: [name], action: allow, args: [bits(index, flag, 0)] },
        { names: [name], action: refuse, errnoRet: EPERM, args: [bits(index, flag, flag)] }
      ]),
      ...resources.filter((resource) => resource !== RLIMIT_CORE).flatMap((resource) => [
        { names: ["setrlimit"], action: allow, args: [int(0, resource)] },
        { names: ["prlimit64"], action: allow, args: [int(1, resource)] }
      ]),
      // A core limit of 1 alone keeps a crash from starting the host's handler for core dumps, as root and outside of all
      // limits; 0 does not (core(5)). Who asks for 0 wants no dump and gets none, so it is no lie to say yes.
      { names: ["setrlimit"], action: refuse, errnoRet: SUCCESS, args: [int(0, RLIMIT_CORE)] },
      {
        names: ["prlimit64"],
        action: allow,
        args: [int(1, RLIMIT_CORE), { index: 2, value: 0, op: "SCMP_CMP_EQ" }]
      },
      {
        names: ["prlimit64"],
        action: refuse,
        errnoRet: SUCCESS,
        args: [int(1, RLIMIT_CORE), { index: 2, value: 0, op: "SCMP_CMP_NE" }]
      },
      ...intsOtherThan(0, PR_SCHED_CORE).map((option) => ({ names: ["prctl"], action: allow, args: [option] })),
      { names: ["prctl"], action: refuse, errnoRet: EPERM, args: [int(0, PR_SCHED_CORE)] },
      ...personalities.map((personality) => ({ names: ["personality"], action: allow, args: equals(personality) })),
      {
        names: ["clone"],
        action: allow,
        args: [{ index: 0, value: CLONE_NEW, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]
      }
    ]
  }
}
