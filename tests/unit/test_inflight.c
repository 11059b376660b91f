#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/inflight.h"

static const struct sock_peer one = {.len = 1, .id = {1}}, two = {.len = 1, .id = {2}};
static const uint8_t frame[LIMIT_FRAME_BYTES];

static struct inflight_block *take(struct inflight *t, const struct sock_peer *to) {
    struct inflight_peer *p;
    cr_assert_eq(inflight_room(t, to, sizeof frame, &p), 0);
    struct inflight_block *b = inflight_take(t, p, frame, sizeof frame);
    cr_assert(b && memcmp(inflight_data(b), frame, sizeof frame) == 0);
    return b;
}

static void give(struct inflight_block *b) {
    inflight_free(inflight_data(b), b);
}

Test(inflight, a_peer_has_room_up_to_its_limit_and_again_when_frames_were_freed) {
    enum { FRAMES = LIMIT_PEER_INFLIGHT_BYTES / LIMIT_FRAME_BYTES };
    struct inflight *t = inflight_open();
    struct inflight_block *b[FRAMES];
    struct inflight_peer *p;
    for (int i = 0; i < FRAMES; i++) b[i] = take(t, &one);
    cr_assert_eq(inflight_bytes(t), LIMIT_PEER_INFLIGHT_BYTES);
    cr_assert_eq(inflight_room(t, &one, 1, &p), -EAGAIN);
    give(take(t, &two));
    give(b[0]);
    b[0] = take(t, &one);
    for (int i = 0; i < FRAMES; i++) give(b[i]);
    cr_assert_eq(inflight_bytes(t), 0);
    cr_assert_eq(inflight_room(t, &one, UINT64_C(200) << 20, &p), 0, "one message of any size");
    inflight_close(t);
}

Test(inflight, peers_that_have_nothing_under_way_leave_their_place_to_others) {
    struct inflight *t = inflight_open();
    struct inflight_block *kept = take(t, &one);
    for (uint32_t i = 0; i < 5000; i++) {
        struct sock_peer p = {.len = 4};
        memcpy(p.id, &i, sizeof i);
        give(take(t, &p));
    }
    cr_assert_eq(inflight_bytes(t), sizeof frame);
    give(kept);
    inflight_close(t);
}

Test(inflight, a_table_whose_places_are_all_taken_has_no_room_for_another_peer) {
    struct inflight *t = inflight_open();
    struct inflight_block *b[1024];
    struct inflight_peer *p;
    for (uint32_t i = 0; i < 1024; i++) {
        struct sock_peer to = {.len = 4};
        memcpy(to.id, &i, sizeof i);
        cr_assert_eq(inflight_room(t, &to, 1, &p), 0);
        b[i] = inflight_take(t, p, frame, 1);
    }
    cr_assert_eq(inflight_room(t, &one, 1, &p), -EAGAIN);
    give(b[500]);
    cr_assert_eq(inflight_room(t, &one, 1, &p), 0);
    b[500] = inflight_take(t, p, frame, 1);
    for (uint32_t i = 0; i < 1024; i++) give(b[i]);
    inflight_close(t);
}

Test(inflight, a_frame_that_zmq_still_holds_outlives_its_socket) {
    struct inflight *t = inflight_open();
    struct inflight_block *b = take(t, &one);
    inflight_close(t);
    cr_assert_eq(memcmp(inflight_data(b), frame, sizeof frame), 0);
    give(b);
}
