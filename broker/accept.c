#include "broker/accept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"

enum { FEW_FILES = 1024 };

/* Called by libzmq's threads, which know of no broker. */
static _Atomic uint64_t refused;

uint64_t accept_refused(void) {
    return atomic_load_explicit(&refused, memory_order_relaxed);
}

void accept_init(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    if (files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
            log_warn("files_not_raised", "error=\"%s\"", err_text(-errno));
        getrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur < FEW_FILES)
        log_warn("few_files", "files=%" PRIu64 " fix=\"raise the hard limit, such as LimitNOFILE\"",
                 (uint64_t)files.rlim_cur);
}

/* Numbers are given from the lowest, so this one's says how many there are. */
int accept4(int listener, __SOCKADDR_ARG peer, socklen_t *restrict len, int flags) {
    struct rlimit files;
    int fd = (int)syscall(SYS_accept4, listener, peer.__sockaddr__, len, flags);
    if (fd < 0 || getrlimit(RLIMIT_NOFILE, &files) != 0) return fd;
    if (files.rlim_cur == RLIM_INFINITY || (rlim_t)fd + ACCEPT_RESERVE < files.rlim_cur) return fd;
    close(fd);
    atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
    errno = ECONNABORTED;
    return -1;
}
