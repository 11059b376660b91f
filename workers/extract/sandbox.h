/* sandbox.h - what the helper may still do once it has a document in its hands: almost nothing.
 *
 * First sandbox_limit, before the document is looked at: limits of memory, processor time, files
 * and processes; no new privileges, no core, no ptrace by others, death with the parent. Then
 * sandbox_enter, before the document is parsed: Landlock leaves one folder readable and nothing
 * else of the file system, and a list of system calls (libseccomp) leaves reading, writing to what
 * is open, memory, and the end. No sockets, no new processes, no writing opens, no memory that is
 * made executable. A kernel without Landlock gets a list in which no file can be opened at all:
 * fonts that need poppler-data are then not readable. A kernel without seccomp is refused.
 *
 * A forbidden call and the want of memory end the process with a DEATH frame (output.h) that says
 * which.
 *
 * Units: bytes, seconds.  Owner, memory: none.  Errors: -errno with err.  Threads: the only one. */
#ifndef PENSTOCK_WORKERS_EXTRACT_SANDBOX_H
#define PENSTOCK_WORKERS_EXTRACT_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* parent: who started us; 0 does not ask. -ESRCH: it is dead already. The address sanitizer needs
 * more address space than any limit: under it memory_bytes is not set. */
int sandbox_limit(uint64_t memory_bytes, uint32_t cpu_s, pid_t parent, char *err, size_t err_bytes);
int sandbox_enter(const char *readable_folder, char *err, size_t err_bytes);

/* Whether an allocation failed since the last call. Most of Poppler takes that for its end, and the
 * handler of that reports it; some parts go on without. */
bool sandbox_out_of_memory(void);

#endif
