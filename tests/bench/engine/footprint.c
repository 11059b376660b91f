#include "tests/bench/engine/footprint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/bench/engine/ours.h"
#include "tests/bench/report/python.h"

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

/* The most memory that this process has had at once; not that of the one that it began as a copy
 * of, which getrusage would count. */
static uint64_t peak_kib(void) {
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

void footprint_work(const struct job *j, enum dtype weights) {
    struct ours o;
    if (!ours_open(&o, j->dir, weights, j->threads, j->prompt_tokens + j->tokens + 16)) exit(1);
    ours_decode(&o, 1, j->prompt_tokens, 1);
    int64_t first_ns = clock_mono_ns();
    ours_decode(&o, 1, j->prompt_tokens, j->tokens);
    printf("%" PRId64 " %" PRIu64 "\n", first_ns, peak_kib());
    ours_close(&o);
}

/* Runs a command that prints when its first token was there, and its peak. */
static struct footprint measure(const char *command) {
    long long first_ns = 0;
    unsigned long long kib = 0;
    int64_t began = clock_mono_ns();
    FILE *f = popen(command, "re");
    if (!f) die("a process cannot be started");
    if (fscanf(f, "%lld %llu", &first_ns, &kib) != 2) first_ns = began;
    if (pclose(f) != 0) return (struct footprint){0};
    return (struct footprint){(double)kib / 1024, (double)(first_ns - began) * 1e-9};
}

struct footprint footprint_ours(const struct job *j) {
    char command[2048], self[512] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) die("/proc/self/exe is not there");
    snprintf(command, sizeof command,
             "'%s' --job %s --model '%s' --threads %u --prompt %u --tokens %u", self, j->weights,
             j->dir, j->threads, j->prompt_tokens, j->tokens);
    struct footprint f = measure(command);
    if (f.peak_mib <= 0) die("--job has failed");
    return f;
}

struct footprint footprint_theirs(const struct job *j) {
    char command[2048], python[512];
    if (!python_find(python, sizeof python)) return (struct footprint){0};
    snprintf(command, sizeof command, "'%s' tests/bench/engine/job.py '%s' %u %u %u 2>/dev/null",
             python, j->dir, j->threads, j->prompt_tokens, j->tokens);
    return measure(command);
}
