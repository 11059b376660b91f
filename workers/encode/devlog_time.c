#include "workers/encode/devlog_time.h"

#include <stdbool.h>
#include <string.h>

#include "workers/encode/devlog.h"

struct scan {
    const char *at, *end;
};

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* Exactly n digits. */
static bool number(struct scan *s, int n, int64_t *out) {
    if (s->end - s->at < n) return false;
    int64_t v = 0;
    for (int i = 0; i < n; i++) {
        if (!digit(s->at[i])) return false;
        v = v * 10 + (s->at[i] - '0');
    }
    *out = v;
    s->at += n;
    return true;
}

static bool one_of(struct scan *s, const char *set, char *got) {
    if (s->at == s->end || !*s->at || !strchr(set, *s->at)) return false;
    if (got) *got = *s->at;
    s->at++;
    return true;
}

/* Days since 1970 of a date in the Gregorian calendar: years begin in March here, so that the
 * leap day is a year's last and months lengths follow 153 days in five months. */
static int64_t days(int64_t y, int64_t m, int64_t d) {
    int64_t shifted = m > 2 ? m - 3 : m + 9, year = m > 2 ? y : y - 1;
    return year * 365 + year / 4 - year / 100 + year / 400 + (153 * shifted + 2) / 5 + d - 719469;
}

static bool date_ok(int64_t y, int64_t m, int64_t d) {
    static const int8_t length[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    return y >= 1970 && y <= 2100 && m >= 1 && m <= 12 && d >= 1 && d <= length[m - 1] &&
           (m != 2 || d < 29 || leap);
}

/* .678 or ,678: any number of digits, of which three count. */
static void fraction(struct scan *s, int64_t *ms) {
    struct scan t = *s;
    int64_t scale = 100;
    if (!one_of(&t, ".,", NULL) || t.at == t.end || !digit(*t.at)) return;
    for (; t.at < t.end && digit(*t.at); t.at++, scale /= 10) *ms += (*t.at - '0') * scale;
    *s = t;
}

/* HH:MM[:SS[.fff]], or HHMM[SS] in the compact form; to milliseconds of the day. */
static bool clock_of(struct scan *s, bool compact, int64_t *ms) {
    struct scan t = *s;
    int64_t h, m, sec = 0;
    if (!number(&t, 2, &h) || (!compact && !one_of(&t, ":", NULL)) || !number(&t, 2, &m))
        return false;
    struct scan u = t;
    if ((compact || one_of(&u, ":", NULL)) && number(&u, 2, &sec)) t = u;
    if (h > 23 || m > 59 || sec > 60) return false;
    *ms = ((h * 60 + m) * 60 + sec) * 1000;
    fraction(&t, ms);
    *s = t;
    return true;
}

/* Z, +08:00 or +0800, directly or after a space; in milliseconds, to be taken off. */
static int64_t zone(struct scan *s) {
    struct scan t = *s;
    char sign;
    int64_t h, m;
    if (one_of(&t, "Zz", NULL)) {
        *s = t;
        return 0;
    }
    one_of(&t, " ", NULL);
    if (!one_of(&t, "+-", &sign) || !number(&t, 2, &h)) return 0;
    one_of(&t, ":", NULL);
    if (!number(&t, 2, &m) || h > 14 || m > 59) return 0;
    *s = t;
    return (sign == '+' ? 1 : -1) * (h * 60 + m) * 60000;
}

static bool calendar(struct scan *s, int64_t *ms) {
    struct scan t = *s;
    int64_t y = 0, m = 0, d = 0, of_day = 0;
    char sep = 0;
    bool compact = false;
    if (number(&t, 4, &y) && one_of(&t, "-/.", &sep)) { /* 2026-01-02 */
        if (!number(&t, 2, &m) || !one_of(&t, (char[]){sep, 0}, NULL) || !number(&t, 2, &d))
            return false;
    } else if (t = *s, number(&t, 2, &d) && one_of(&t, ".", NULL)) { /* 02.01.2026 */
        if (!number(&t, 2, &m) || !one_of(&t, ".", NULL) || !number(&t, 4, &y)) return false;
    } else { /* 20260102 */
        t = *s;
        if (!number(&t, 4, &y) || !number(&t, 2, &m) || !number(&t, 2, &d)) return false;
        compact = true;
    }
    if (!date_ok(y, m, d)) return false;
    struct scan u = t;
    bool timed = one_of(&u, compact ? "T_- " : "Tt _", NULL) && clock_of(&u, compact, &of_day);
    if (timed) t = u;
    if (compact && !timed) return false; /* eight digits alone are a number */
    *ms = days(y, m, d) * 86400000 + of_day;
    if (timed) *ms -= zone(&t);
    *s = t;
    return true;
}

/* 1767323045[.678] or 1767323045678 */
static bool epoch(struct scan *s, int64_t *ms) {
    struct scan t = *s;
    size_t n = 0;
    while (n < (size_t)(t.end - t.at) && digit(t.at[n])) n++;
    if (n != 10 && n != 13) return false;
    number(&t, (int)n, ms);
    if (n == 10) *ms *= 1000;
    if (*ms < 1000000000000 || *ms > 4102444800000) return false;
    if (n == 10) fraction(&t, ms);
    *s = t;
    return true;
}

/* Jan  2 03:04:05 */
static bool syslog_of(struct scan *s) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct scan t = *s;
    int64_t unused;
    if (t.end - t.at < 15) return false;
    const char *month = months;
    while (*month && memcmp(month, t.at, 3) != 0) month += 3;
    if (!*month || t.at[3] != ' ' || !(digit(t.at[4]) || t.at[4] == ' ') || !digit(t.at[5]) ||
        t.at[6] != ' ')
        return false;
    t.at += 7;
    if (!clock_of(&t, false, &unused)) return false;
    *s = t;
    return true;
}

size_t devlog_time(const char *text, size_t len, int64_t *ms) {
    struct scan s = {text, text + len};
    int64_t unused;
    *ms = DEVLOG_NO_TIME;
    if (!calendar(&s, ms) && !epoch(&s, ms)) {
        *ms = DEVLOG_NO_TIME;
        if (!syslog_of(&s) && !clock_of(&s, false, &unused)) return 0;
    }
    bool word = s.at < s.end &&
                (digit(*s.at) || (*s.at >= 'A' && *s.at <= 'Z') || (*s.at >= 'a' && *s.at <= 'z'));
    if (word) {
        *ms = DEVLOG_NO_TIME;
        return 0;
    }
    return (size_t)(s.at - text);
}
