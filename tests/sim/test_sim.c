/* Random histories of the whole broker; see world.h.
 *
 * JOBS=N runs that many jobs (100000), SEED=N draws other histories, WORLD=N runs one again. As
 * many processes as there are processors share the worlds out; each world is alone in its
 * process. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "tests/sim/world.h"

enum { JOBS_A_WORLD = 400, PROCESSES_MAX = 16 };

/* None at all, two that are felt everywhere, and one of shares alone. */
static const char *const settings[] = {
    "tenants:\n  - {name: ada, jobs_max: 25, rate_per_s: 150, burst: 10}\n"
    "  - {name: bob, jobs_max: 30, weight: 3}\n"
    "levels:\n  - {level: 3, jobs_max: 4}\n  - {level: 7, jobs_max: 9, bytes_max: 3000}\n"
    "  - {level: 5, jobs_max: 2, full: drop_oldest}\n"
    "stages:\n  - {run: test.a, jobs_max: 20}\n  - {run: test.b, jobs_max: 3}\n"
    "  - {run: test.c, jobs_max: 2, bytes_max: 1700}\n"
    "sources:\n  - {name: yard, policy: drop_oldest, depth: 3}\n"
    "  - {name: gate, policy: block, depth: 4}\n"
    "  - {name: \"*\", policy: sample, depth: 9, above: 2, keep_one_of: 3}\n",
    "tenants:\n  - {name: \"*\", weight: 2, jobs_max: 60, bytes_max: 12000}\n"
    "stages:\n  - {run: test.one, bytes_max: 6000}\n"
    "  - {run: test.b, bytes_max: 4000}\n  - {run: test.c, jobs_max: 1}\n"
    "sources:\n  - {name: \"*\", policy: drop_oldest, depth: 1}\n"
    "  - {name: belt, policy: sample, depth: 5, interval_ms: 50}\ndedupe_window_s: 2\n",
    "tenants:\n  - {name: bob, weight: 3}\n  - {name: cyd, weight: 2}\n"};
enum { SETTINGS = sizeof settings / sizeof *settings };

static void write_settings(const char *dir, char paths[SETTINGS][64], const char **list) {
    char err[256];
    for (int i = 0; i < SETTINGS; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/s%d.yaml", dir, i);
        cr_assert_eq(file_replace(paths[i], settings[i], strlen(settings[i]), err, sizeof err), 0);
        list[i] = paths[i];
    }
}

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* What the processes share. */
struct board {
    _Atomic uint64_t worlds, jobs;
    struct totals sum[PROCESSES_MAX];
};
struct plan {
    const struct pipelines *folders;
    const char *const *settings;
    uint64_t seed, jobs;
};

static void simulate(const struct plan *p, struct board *board, struct totals *sum) {
    while (atomic_load(&board->jobs) < p->jobs) {
        uint64_t i = atomic_fetch_add(&board->worlds, 1), before = sum->jobs;
        uint64_t world = (uint64_t)rng_u32(p->seed, 0, i, 0) << 32 | rng_u32(p->seed, 0, i, 1);
        world_run(world, JOBS_A_WORLD, p->folders, p->settings, sum);
        atomic_fetch_add(&board->jobs, sum->jobs - before);
    }
}

static void add_totals(struct totals *sum, const struct totals *more) {
    sum->jobs += more->jobs;
    sum->steps += more->steps;
    sum->kills += more->kills;
    sum->drains += more->drains;
    sum->disk_failures += more->disk_failures;
    sum->stale += more->stale;
    sum->uploads += more->uploads;
    sum->many += more->many;
    sum->dropped += more->dropped;
    sum->sampled += more->sampled;
    sum->outlived += more->outlived;
    sum->contested += more->contested;
    sum->deleted += more->deleted;
    sum->followed += more->followed;
    sum->gaps += more->gaps;
    for (int s = 0; s < JOB_STATES; s++) sum->ends[s] += more->ends[s];
}

static void simulate_in_processes(const struct plan *p, struct totals *sum) {
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(board != MAP_FAILED);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1) n = 1;
    if (n > PROCESSES_MAX) n = PROCESSES_MAX;
    pid_t child[PROCESSES_MAX];
    for (long i = 0; i < n; i++) {
        child[i] = fork();
        cr_assert_geq(child[i], 0);
        if (child[i] > 0) continue;
        simulate(p, board, &board->sum[i]);
        _exit(0);
    }
    for (long i = 0; i < n; i++) {
        int status;
        cr_assert_eq(waitpid(child[i], &status, 0), child[i]);
        cr_assert_eq(status, 0, "a promise was broken; its world is named above");
        add_totals(sum, &board->sum[i]);
    }
    munmap(board, sizeof *board);
}

Test(sim, every_promise_holds_in_random_histories) {
    struct pipelines folders[FOLDERS + 1] = {{0}};
    struct totals sum = {0};
    char dir[] = "/tmp/penstock-sim-XXXXXX", paths[SETTINGS][64];
    const char *list[SETTINGS + 1] = {NULL};
    cr_assert_not_null(mkdtemp(dir));
    char err[256] = "";
    cr_assert_eq(world_pipelines(folders, dir, err, sizeof err), 0, "%s", err);
    write_settings(dir, paths, list);
    uint64_t seed = setting("SEED", 0), world = setting("WORLD", 0);
    while (!seed) {
        FILE *f = fopen("/dev/urandom", "rb");
        cr_assert(f && fread(&seed, 4, 1, f) == 1);
        fclose(f);
    }
    uint64_t jobs = setting("JOBS", getenv("SAN") && *getenv("SAN") ? 10000 : 100000);
    struct plan plan = {folders, list, seed, jobs};
    fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
    if (world)
        world_run(world, JOBS_A_WORLD, folders, list, &sum);
    else
        simulate_in_processes(&plan, &sum);
    fprintf(
        stderr,
        "%llu jobs ended once each (%llu done, %llu failed, %llu cancelled, %llu expired): %llu "
        "turns, %llu kills, %llu drains, %llu failed commits, %llu stale outcomes, %llu dropped "
        "and %llu sampled out, %llu uploads, %llu leases of versions that were gone, %llu in "
        "competition, %llu deleted, %llu followed with %llu gaps, "
        "%llu said with others\n",
        (unsigned long long)sum.jobs, (unsigned long long)sum.ends[JOB_DONE],
        (unsigned long long)sum.ends[JOB_FAILED], (unsigned long long)sum.ends[JOB_CANCELLED],
        (unsigned long long)sum.ends[JOB_EXPIRED], (unsigned long long)sum.steps,
        (unsigned long long)sum.kills, (unsigned long long)sum.drains,
        (unsigned long long)sum.disk_failures, (unsigned long long)sum.stale,
        (unsigned long long)sum.dropped, (unsigned long long)sum.sampled,
        (unsigned long long)sum.uploads, (unsigned long long)sum.outlived,
        (unsigned long long)sum.contested, (unsigned long long)sum.deleted,
        (unsigned long long)sum.followed, (unsigned long long)sum.gaps,
        (unsigned long long)sum.many);
    cr_assert(world || (sum.kills > 10 && sum.disk_failures > 10 && sum.stale > 10 &&
                        sum.uploads > 10 && sum.dropped > 10 && sum.sampled > 10 &&
                        sum.outlived > 10 && sum.contested > 10 && sum.deleted > 10 &&
                        sum.followed > 10 && sum.gaps > 0 && sum.many > 10),
              "the histories were too quiet to show anything");
    world_pipelines_free(folders);
    for (int i = 0; i < SETTINGS; i++) unlink(paths[i]);
    rmdir(dir);
}
