#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schemas/endpoint.h"

Test(endpoint, the_default_lies_in_the_runtime_folder_or_under_tmp) {
    char e[ENDPOINT_BYTES], want[ENDPOINT_BYTES];
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    endpoint_default(ENDPOINT_CLIENTS, e);
    cr_assert_str_eq(e, "ipc:///run/user/7/penstock/clients");
    unsetenv("XDG_RUNTIME_DIR");
    endpoint_default(ENDPOINT_WORKERS, e);
    snprintf(want, sizeof want, "ipc:///tmp/penstock-%lu/workers", (unsigned long)getuid());
    cr_assert_str_eq(e, want);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    endpoint_default_dir(e);
    cr_assert_eq(strncmp(e, "/tmp/penstock-", 14), 0);
}

Test(endpoint, a_folder_that_others_can_write_is_not_trusted) {
    char dir[] = "/tmp/penstock-end-XXXXXX", e[ENDPOINT_BYTES], err[256];
    cr_assert_not_null(mkdtemp(dir));
    snprintf(e, sizeof e, "ipc://%s/clients", dir);
    cr_assert_eq(endpoint_check(e, err, sizeof err), 0);
    chmod(dir, 0777);
    cr_assert_eq(endpoint_check(e, err, sizeof err), -EPERM);
    cr_assert(strstr(err, dir) && strstr(err, "chmod"), "%s", err);
    rmdir(dir);
    cr_assert_eq(endpoint_check(e, err, sizeof err), 0, "not there yet");
    cr_assert_eq(endpoint_check("tcp://127.0.0.1:1", err, sizeof err), 0);
    cr_assert_eq(endpoint_check("ipc:///tmp/x", err, sizeof err), 0, "sticky");
}

Test(endpoint, a_folder_of_another_user_is_trusted_where_only_root_can_have_made_it) {
    if (getuid() != 0) cr_skip_test("needs root");
    char dir[] = "/tmp/penstock-end-XXXXXX", e[ENDPOINT_BYTES], err[256];
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(chown(dir, 4711, 4711), 0);
    snprintf(e, sizeof e, "ipc://%s/clients", dir);
    cr_assert_eq(endpoint_check(e, err, sizeof err), -EPERM, "anybody can make one in /tmp");
    cr_assert(strstr(err, "4711"), "%s", err);

    char given[sizeof dir + 8];
    snprintf(given, sizeof given, "%s/given", dir);
    cr_assert(chown(dir, 0, 0) == 0 && chmod(dir, 0755) == 0 && mkdir(given, 0750) == 0);
    cr_assert_eq(chown(given, 4711, 4711), 0);
    snprintf(e, sizeof e, "ipc://%s/clients", given);
    cr_assert_eq(endpoint_check(e, err, sizeof err), 0, "%s", err);
    rmdir(given);
    rmdir(dir);
}
