/* pipeline.c - fuzzes the reader of pipeline files: whatever the bytes, a file is taken whole or
 * refused in words. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pipelines/pipeline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct pipelines p = {0};
    char path[64], err[512] = "";
    int fd = memfd_create("pipeline", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = pipeline_load(&p, path, err, sizeof err);
    if (rc < 0 && !err[0]) abort();
    if (rc == 0 && (p.n != 1 || p.items[0]->n_stages == 0)) abort();
    pipelines_free(&p);
    close(fd);
    return 0;
}
