/* contract_dir.h - where taxonomy.yaml and policy.yaml lie.
 *
 * PENSTOCK_CONTRACT names the folder; without it, it is looked for beside the program as installed
 * (../share/penstock/pipelines/contract), then as built, then below the working directory.
 *
 * Units: bytes.  Owner, memory: the caller's buffer.  Errors: -ENOENT naming the variable.
 * Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_CONTRACT_DIR_H
#define PENSTOCK_WORKERS_POST_CONTRACT_DIR_H

#include <stddef.h>

/* path: the file's, in a buffer of path_bytes. */
int contract_file(const char *name, char *path, size_t path_bytes, char *err, size_t err_bytes);

#endif
