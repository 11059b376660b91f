#include "workers/extract/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/err.h"
#include "workers/extract/memory.h"
#include "workers/extract/output.h"

#define STACK_BYTES (8u * 1024u * 1024u)
#define FILES 16u

static int limit(int what, const char *name, rlim_t soft, rlim_t hard, char *err,
                 size_t err_bytes) {
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)what, &now) != 0) now.rlim_max = RLIM_INFINITY;
    if (hard > now.rlim_max) hard = now.rlim_max;
    if (soft > hard) soft = hard;
    struct rlimit want = {.rlim_cur = soft, .rlim_max = hard};
    if (setrlimit((__rlimit_resource_t)what, &want) == 0) return 0;
    int code = -errno;
    return err_set(err, err_bytes, code, "cannot limit %s: %s", name, err_text(code));
}

int sandbox_limit(uint64_t memory_bytes, uint32_t cpu_s, pid_t parent, char *err,
                  size_t err_bytes) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_set(err, err_bytes, -errno, "prctl: %s", err_text(-errno));
    if (parent != 0 && getppid() != parent)
        return err_set(err, err_bytes, -ESRCH, "whoever started this is gone");
    int rc = limit(RLIMIT_CPU, "processor time", cpu_s, cpu_s + 1, err, err_bytes);
    if (rc == 0 && !MEMORY_SANITIZED)
        rc = limit(RLIMIT_AS, "memory", memory_bytes, memory_bytes, err, err_bytes);
    if (rc == 0) rc = limit(RLIMIT_STACK, "the stack", STACK_BYTES, STACK_BYTES, err, err_bytes);
    if (rc == 0) rc = limit(RLIMIT_FSIZE, "file sizes", 0, 0, err, err_bytes);
    if (rc == 0) rc = limit(RLIMIT_NOFILE, "open files", FILES, FILES, err, err_bytes);
    if (rc == 0) rc = limit(RLIMIT_NPROC, "processes", 0, 0, err, err_bytes);
    if (rc == 0) rc = limit(RLIMIT_CORE, "core files", 0, 0, err, err_bytes);
    return rc;
}

bool sandbox_out_of_memory(void) {
    bool failed = memory_failed != 0;
    memory_failed = 0;
    return failed;
}

/* ---- the end, said before it comes ---- */

static void on_forbidden(int signal_number, siginfo_t *info, void *context) {
    (void)signal_number;
    (void)context;
    /* The call was made outside the allocator, whose calls are all allowed: it can be used here. */
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, info->si_syscall);
    char number[24];
    snprintf(number, sizeof number, "%d", info->si_syscall);
    output_death(FRAME_DEATH_SYSCALL, name ? name : number);
    _exit(1);
}

/* A signal that ends us is the want of memory's fault if an allocation has failed. The handler is
 * reset when it runs: raised again, or returned to, the same fault kills. */
static void on_fatal(int signal_number) {
    if (memory_failed) {
        output_death(FRAME_DEATH_MEMORY, "");
        _exit(1);
    }
    raise(signal_number);
}

static void handle_deaths(void) {
    struct sigaction forbidden = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO};
    struct sigaction fatal = {.sa_handler = on_fatal, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
    sigaction(SIGSYS, &forbidden, NULL);
    const int ends[] = {SIGABRT, SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (size_t i = 0; !MEMORY_SANITIZED && i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &fatal, NULL);
}

/* ---- files: Landlock ---- */

#define LANDLOCK_ALL_V1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* the last bit of version 1 */

/* 1: the file system is closed but for this folder; 0: this kernel cannot. */
static int close_files(const char *folder, char *err, size_t err_bytes) {
    struct landlock_ruleset_attr all = {.handled_access_fs = LANDLOCK_ALL_V1};
    long rules = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    if (rules < 0) return 0;
    struct landlock_path_beneath_attr reading = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE |
                                                                   LANDLOCK_ACCESS_FS_READ_DIR,
                                                 .parent_fd = open(folder, O_PATH | O_CLOEXEC)};
    long rc = 0;
    if (reading.parent_fd >= 0) { /* without poppler-data nothing is readable */
        rc = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &reading, 0);
        close(reading.parent_fd);
    }
    if (rc == 0) rc = syscall(SYS_landlock_restrict_self, rules, 0);
    int code = rc == 0 ? 0 : -errno;
    close((int)rules);
    if (code < 0) return err_set(err, err_bytes, code, "Landlock: %s", err_text(code));
    return 1;
}

/* ---- system calls: seccomp ---- */

static const int free_calls[] = {
    /* what is open */
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
    SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(getdents64),
    /* names, which Landlock does not hide; contents it does */
    SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(access),
    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
    /* memory, but for what makes it executable */
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
    /* locks, time, chance, who am I */
    SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom),
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(sched_yield), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getcwd), SCMP_SYS(uname), SCMP_SYS(sysinfo),
    SCMP_SYS(sched_getaffinity),
    /* signals to oneself, and the end */
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(exit), SCMP_SYS(exit_group)};

static int allow_guarded(scmp_filter_ctx f, bool files) {
    const struct scmp_arg_cmp not_executable = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    const struct scmp_arg_cmp self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0);
    const struct scmp_arg_cmp get_flags = SCMP_A1(SCMP_CMP_EQ, F_GETFL, 0);
    const struct scmp_arg_cmp set_nothing = SCMP_A2(SCMP_CMP_EQ, 0, 0);
    const scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    const struct scmp_arg_cmp read_only = SCMP_A2(SCMP_CMP_MASKED_EQ, writing, O_RDONLY);
    int rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &not_executable);
    if (rc == 0)
        rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &not_executable);
    if (rc == 0) rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
    if (rc == 0) rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, &get_flags);
    if (rc == 0)
        rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, &set_nothing);
    if (rc == 0 && files)
        return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, &read_only);
    /* Poppler asks for files that need not be there: without Landlock, none is. */
    return rc < 0 ? rc : seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
}

static int close_calls(bool files, char *err, size_t err_bytes) {
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
    int rc = f ? allow_guarded(f, files) : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < sizeof free_calls / sizeof *free_calls; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, free_calls[i], 0);
    if (rc == 0) rc = seccomp_load(f);
    if (f) seccomp_release(f);
    if (rc < 0)
        return err_set(err, err_bytes, rc, "the filter of system calls cannot be set: %s",
                       err_text(rc));
    return 0;
}

int sandbox_enter(const char *readable_folder, char *err, size_t err_bytes) {
    handle_deaths();
    int files = close_files(readable_folder, err, err_bytes);
    return files < 0 ? files : close_calls(files == 1, err, err_bytes);
}
