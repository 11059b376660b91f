#include "tests/bench/engine/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 32 };

pid_t child_program(const char *bin, const char *name, const char *const *arguments) {
    char path[600];
    const char *argv[ARGUMENTS_MAX + 2] = {path};
    for (int i = 0; i < ARGUMENTS_MAX && arguments[i]; i++) argv[i + 1] = arguments[i];
    snprintf(path, sizeof path, "%s/%s", bin, name);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd);
        execv(path, (char *const *)(const void *)argv);
        _exit(127);
    }
    if (pid < 0) {
        perror("engine: fork");
        exit(1);
    }
    return pid;
}

void child_end(pid_t pid) {
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}
