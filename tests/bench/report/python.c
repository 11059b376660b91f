#include "tests/bench/report/python.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool python_find(char *path, size_t path_bytes) {
    const char *peers = getenv("PEERS");
    if (!peers || !*peers) return false;
    snprintf(path, path_bytes, "%s/bin/python", peers);
    return access(path, X_OK) == 0;
}

/* The child's side of python_start. */
static _Noreturn void become(const char *python, const char *script, const char *const *arguments,
                             int in, int out) {
    const char *argv[PYTHON_ARGUMENTS_MAX + 3] = {python, script};
    for (int i = 0; i < PYTHON_ARGUMENTS_MAX && arguments[i]; i++) argv[i + 2] = arguments[i];
    dup2(in, 0);
    dup2(out, 1);
    execv(python, (char *const *)(const void *)argv);
    _exit(127);
}

bool python_start(struct python *p, const char *script, const char *const *arguments) {
    char python[512], line[128];
    int to[2], from[2];
    *p = (struct python){0};
    if (!python_find(python, sizeof python) || pipe2(to, O_CLOEXEC) != 0 ||
        pipe2(from, O_CLOEXEC) != 0)
        return false;
    p->pid = fork();
    if (p->pid == 0) become(python, script, arguments, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    p->ask = fdopen(to[1], "w");
    p->answer = fdopen(from[0], "r");
    if (p->pid > 0 && p->ask && p->answer && fgets(line, sizeof line, p->answer) &&
        strcmp(line, "ready\n") == 0)
        return true;
    fprintf(stderr, "%s cannot run %s\n", python, script);
    python_stop(p);
    return false;
}

bool python_ask(struct python *p, const char *line, char *answer, size_t answer_bytes) {
    if (!p->ask) return false;
    fprintf(p->ask, "%s\n", line);
    fflush(p->ask);
    return fgets(answer, (int)answer_bytes, p->answer) != NULL;
}

void python_stop(struct python *p) {
    if (p->ask) fclose(p->ask);
    if (p->answer) fclose(p->answer);
    if (p->pid > 0) waitpid(p->pid, NULL, 0);
    *p = (struct python){0};
}
