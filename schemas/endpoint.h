/* endpoint.h - where broker, workers and clients of one machine meet when nobody says otherwise,
 * and where jobs are kept.
 *
 * The folder is $XDG_RUNTIME_DIR/penstock, or /tmp/penstock-UID without one; in it the broker's two
 * sockets are `clients` and `workers`. A folder in /tmp could have been made by somebody else
 * first, so it is used only when it belongs to this user and is closed to others.
 *
 * Units: none.  Owner, memory: the caller's buffers.  Errors: -errno, -EPERM with err.  Threads:
 * any. */
#ifndef PENSTOCK_SCHEMAS_ENDPOINT_H
#define PENSTOCK_SCHEMAS_ENDPOINT_H

#include <stddef.h>

#define ENDPOINT_BYTES 256

enum endpoint_of { ENDPOINT_CLIENTS, ENDPOINT_WORKERS };

/* "ipc:///run/user/1000/penstock/clients". The environment's PENSTOCK_ENDPOINT is not looked at. */
void endpoint_default(enum endpoint_of which, char out[ENDPOINT_BYTES]);
/* The folder of the default endpoints. */
void endpoint_default_dir(char out[ENDPOINT_BYTES]);
/* Where jobs are kept: $XDG_STATE_HOME/penstock, or ~/.local/state/penstock. Not the runtime
 * folder, which is memory and goes with the session. Cut to fit. */
void endpoint_state_dir(char *out, size_t out_bytes);
/* Refuses an ipc:// endpoint whose folder can be written by others, or belongs to another user and
 * could have been made by him; root's own, and those that root gave a service (/run/penstock), are
 * trusted. Other transports and folders that are not there yet pass. */
int endpoint_check(const char *endpoint, char *err, size_t err_bytes);

#endif
