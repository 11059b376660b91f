#include <criterion/criterion.h>

#include "base/err.h"
#include "broker/owed.h"

struct told {
    uint64_t req[16];
    uint32_t n, tries;
    uint8_t deaf; /* this peer has no room */
};

static struct sock_peer peer(uint8_t name) {
    return (struct sock_peer){.len = 1, .id = {name}};
}

static bool tell(void *arg, const struct owed *o) {
    struct told *t = arg;
    t->tries++;
    if (o->peer.id[0] == t->deaf) return false;
    t->req[t->n++] = o->req;
    return true;
}

Test(owed, is_said_in_order_and_a_client_without_room_keeps_its_own) {
    struct owed_list l;
    struct told t = {.deaf = 1};
    struct sock_peer a = peer(1), b = peer(2);
    cr_assert_eq(owed_init(&l, 8), 0);
    cr_assert_eq(owed_wait_ms(&l, 0), -1);
    for (uint64_t i = 0; i < 3; i++) cr_assert_eq(owed_add(&l, &a, i, 70, 0), 0);
    for (uint64_t i = 3; i < 6; i++) cr_assert_eq(owed_add(&l, &b, i, 70, 0), 0);
    owed_settle(&l, 1, tell, &t);
    cr_assert_eq(t.tries, 0, "not before its time");
    owed_settle(&l, 1 + owed_wait_ms(&l, 1), tell, &t);
    cr_assert_eq(t.n, 3);
    cr_assert_eq(t.req[0], 3);
    cr_assert_eq(t.tries, 4, "the deaf one is asked once a turn");
    cr_assert_eq(l.n, 3);
    t.deaf = 0;
    owed_settle(&l, 1000, tell, &t);
    cr_assert_eq(t.n, 6);
    cr_assert_eq(t.req[3], 0);
    cr_assert_eq(t.req[5], 2);
    cr_assert_eq(owed_wait_ms(&l, 1000), -1);
    owed_fini(&l);
}

Test(owed, is_bounded) {
    struct owed_list l;
    struct sock_peer a = peer(1);
    cr_assert_eq(owed_init(&l, 2), 0);
    cr_assert_eq(owed_add(&l, &a, 0, 1, 0), 0);
    cr_assert_eq(owed_add(&l, &a, 1, 1, 0), 0);
    cr_assert_eq(owed_add(&l, &a, 2, 1, 0), ERR_FULL);
    owed_fini(&l);
}
