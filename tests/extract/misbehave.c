/* misbehave.c - this program as a helper: started under a name that begins with "misbehave-", it
 * shuts itself in as penstock-extract does and then does what the rest of the name says. It runs
 * before main, so that the test framework never starts. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "workers/extract/output.h"
#include "workers/extract/sandbox.h"

static void misbehave(const char *how) {
    char byte;
    if (strcmp(how, "socket") == 0) socket(AF_INET, SOCK_STREAM, 0);
    if (strcmp(how, "fork") == 0) fork();
    if (strcmp(how, "exec") == 0) execl("/bin/true", "true", (char *)NULL);
    if (strcmp(how, "write") == 0) open("/tmp/penstock-extract-was-here", O_WRONLY | O_CREAT, 0600);
    if (strcmp(how, "code") == 0)
        mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (strcmp(how, "kill") == 0) kill(getpid(), SIGTERM);
    /* Not forbidden, but in vain: a file that anybody may read. */
    int fd = strcmp(how, "read") == 0 ? open("/etc/passwd", O_RDONLY) : -1;
    if (fd >= 0 && read(fd, &byte, 1) == 1) _exit(77);
}

__attribute__((constructor)) static void as_a_helper(int argc, char **argv) {
    static const char prefix[] = "misbehave-";
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (!slash || strncmp(slash + 1, prefix, sizeof prefix - 1) != 0) return;
    struct output o = {0};
    char err[256];
    if (sandbox_limit(1u << 30, 10, 0, err, sizeof err) < 0 ||
        sandbox_enter("/usr/share/poppler", err, sizeof err) < 0)
        _exit(78);
    output_hello(&o, "pdf", "", true, 2);
    misbehave(slash + sizeof prefix);
    _exit(3);
}
