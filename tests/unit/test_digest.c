/* Digests of files, against what git and sha256sum say. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"

Test(digest, known_contents_have_the_names_that_git_and_sha256sum_give_them) {
    static const struct {
        const char *text, *git, *sha256;
    } known[] = {
        {"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
         "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a",
         "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char git[DIGEST_GIT_CHARS], sha256[DIGEST_SHA256_CHARS];
        digest_git(bytes_str(known[i].text), git);
        digest_sha256(bytes_str(known[i].text), sha256);
        cr_assert_str_eq(git, known[i].git);
        cr_assert_str_eq(sha256, known[i].sha256);
    }
}

Test(digest, a_file_has_the_digests_of_its_content_at_every_length_around_a_block) {
    char path[] = "/tmp/penstock-digest-XXXXXX", err[256] = "";
    uint8_t content[200];
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    for (size_t n = 0; n < sizeof content; n++) {
        char of_file[DIGEST_GIT_CHARS], of_bytes[DIGEST_GIT_CHARS], long_file[DIGEST_SHA256_CHARS],
            long_bytes[DIGEST_SHA256_CHARS];
        uint64_t bytes;
        content[n] = (uint8_t)(n * 37);
        digest_git(bytes_of(content, n), of_bytes);
        digest_sha256(bytes_of(content, n), long_bytes);
        cr_assert_eq(digest_file_git(path, of_file, err, sizeof err), 0, "%s", err);
        cr_assert_eq(digest_file_sha256(path, long_file, &bytes, err, sizeof err), 0, "%s", err);
        cr_assert_str_eq(of_file, of_bytes, "%zu bytes", n);
        cr_assert_str_eq(long_file, long_bytes);
        cr_assert_eq(bytes, n);
        cr_assert_eq(write(fd, content + n, 1), 1);
    }
    close(fd);
    unlink(path);
    cr_assert_lt(digest_file_sha256(path, (char[DIGEST_SHA256_CHARS]){0}, NULL, err, sizeof err),
                 0);
    cr_assert(strstr(err, path), "%s", err);
}
