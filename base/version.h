/* version.h - the version of this build, the same in every program and in the client library.
 *
 * Units, owner, memory, errors, threads: none. */
#ifndef PENSTOCK_BASE_VERSION_H
#define PENSTOCK_BASE_VERSION_H

#define PENSTOCK_VERSION "0.1.0"

#endif
