#include <criterion/criterion.h>
#include <stdio.h>

#include "base/err.h"
#include "broker/upload.h"

static struct uploads t;
static struct tenant ours = {.name = "ours"}, theirs = {.name = "theirs"};

static struct upload *open_one(uint64_t id, const char *key, uint64_t bytes, struct tenant *who) {
    struct upload *u = NULL;
    struct upload_record r = {.id = id, .bytes = bytes, .crc = 5, .key = bytes_str(key)};
    cr_assert_eq(upload_open(&t, &r, who, &u), 0);
    return u;
}

Test(broker_upload, one_is_found_by_its_id_and_by_what_it_was_begun_with) {
    uploads_init(&t, 1000);
    struct upload *a = open_one(1, "k", 10, &ours), *b = open_one(2, "", 10, &ours);
    cr_assert(upload_find(&t, 1) == a && upload_find(&t, 2) == b && !upload_find(&t, 3));
    cr_assert_eq(upload_by_key(&t, &ours, bytes_str("k"), 10, 5), a);
    cr_assert_null(upload_by_key(&t, &theirs, bytes_str("k"), 10, 5),
                   "a tenant's keys are its own");
    cr_assert_null(upload_by_key(&t, &ours, bytes_str("k"), 11, 5));
    cr_assert_null(upload_by_key(&t, &ours, bytes_str("k"), 10, 6));
    cr_assert_null(upload_by_key(&t, &ours, bytes_str("other"), 10, 5));
    upload_close(&t, a);
    cr_assert(!upload_find(&t, 1) && upload_find(&t, 2) == b && t.n == 1);
    uploads_fini(&t);
    cr_assert_eq(t.n, 0);
}

Test(broker_upload, they_are_counted_by_client_tenant_and_bytes_to_come) {
    struct sock_peer one = {.len = 1, .id = {1}}, two = {.len = 1, .id = {2}};
    uploads_init(&t, 1000);
    for (uint64_t id = 1; id <= 6; id++) {
        struct upload *u = open_one(id, "", 100, id <= 4 ? &ours : &theirs);
        u->peer = id % 2 ? one : two;
        u->have = id;
    }
    cr_assert(uploads_of_peer(&t, &one) == 3 && uploads_of_peer(&t, &two) == 3);
    cr_assert(uploads_of_tenant(&t, &ours) == 4 && uploads_of_tenant(&t, &theirs) == 2);
    cr_assert_eq(uploads_missing_bytes(&t), 600 - 21);
    uploads_fini(&t);
}

Test(broker_upload, the_table_takes_so_many_and_no_more) {
    struct upload *u;
    struct upload_record r = {.bytes = 1};
    uploads_init(&t, 1000);
    for (r.id = 1; r.id <= LIMIT_UPLOADS; r.id++) cr_assert_eq(upload_open(&t, &r, &ours, &u), 0);
    cr_assert_eq(upload_open(&t, &r, &ours, &u), ERR_FULL);
    due_set(&t.due, &u->due, 100);
    cr_assert_eq(due_late(&t.due, 100), &u->due);
    upload_close(&t, u);
    cr_assert_null(due_late(&t.due, 100), "one that is closed is never late");
    cr_assert_eq(upload_open(&t, &r, &ours, &u), 0);
    uploads_fini(&t);
}
