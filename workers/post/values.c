#include "workers/post/values.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "workers/post/numerals.h"

static bool has(struct bytes text, const char *what) {
    return memmem(text.data, text.len, what, strlen(what)) != NULL;
}

static bool starts(struct bytes text, const char *what) {
    size_t n = strlen(what);
    return text.len >= n && strncasecmp(text.data, what, n) == 0;
}

/* ---- dates ---- */

static int month_of(struct bytes text) {
    static const char *const names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                        "jul", "aug", "sep", "oct", "nov", "dec"};
    for (int i = 0; i < 12; i++)
        if (starts(text, names[i])) return i + 1;
    double v;
    return numeral_value(text, &v) && v >= 1 && v <= 12 && v == floor(v) ? (int)v : 0;
}

static int days_in(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

bool value_date(struct bytes year, struct bytes month, struct bytes day, char out[16]) {
    double y, d = 0;
    int m = month_of(month);
    if (!numeral_value(year, &y) || y != floor(y) || m == 0) return false;
    if (y < 100) y += y < 70 ? 2000 : 1900;
    if (y < 1000 || y > 9999) return false;
    if (day.len == 0) {
        snprintf(out, 16, "%04d-%02d", (int)y, m);
        return true;
    }
    /* "21st": figures, then letters that say no more */
    size_t figures = 0;
    while (figures < day.len && ((const char *)day.data)[figures] >= '0' &&
           ((const char *)day.data)[figures] <= '9')
        figures++;
    if (!numeral_value(figures ? bytes_of(day.data, figures) : day, &d)) return false;
    if (d < 1 || d != floor(d) || d > days_in((int)y, m)) return false;
    snprintf(out, 16, "%04d-%02d-%02d", (int)y, m, (int)d);
    return true;
}

/* ---- durations ---- */

bool value_duration(double number, struct bytes unit, char out[24], double *days, bool *business) {
    static const struct {
        const char *unit;
        const char *format;
        double factor, days;
    } units[] = {{"minute", "PT%.0fM", 1, 1.0 / 1440},
                 {"hour", "PT%.0fH", 1, 1.0 / 24},
                 {"day", "P%.0fD", 1, 1},
                 {"week", "P%.0fW", 1, 7},
                 {"month", "P%.0fM", 1, 30},
                 {"quarter", "P%.0fM", 3, 30},
                 {"year", "P%.0fY", 1, 365},
                 {"分钟", "PT%.0fM", 1, 1.0 / 1440},
                 {"小时", "PT%.0fH", 1, 1.0 / 24},
                 {"日", "P%.0fD", 1, 1},
                 {"天", "P%.0fD", 1, 1},
                 {"周", "P%.0fW", 1, 7},
                 {"星期", "P%.0fW", 1, 7},
                 {"季度", "P%.0fM", 3, 30},
                 {"月", "P%.0fM", 1, 30},
                 {"年", "P%.0fY", 1, 365}};
    if (!(number > 0) || number > 100000) return false;
    *business = has(unit, "工作日");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        bool han = (unsigned char)units[i].unit[0] >= 0x80;
        if (han ? !has(unit, units[i].unit) : !starts(unit, units[i].unit)) continue;
        double n = number * units[i].factor;
        if (n != floor(n)) { /* half a year is six months, anything else has no whole form */
            if (n * 12 != floor(n * 12) || units[i].days != 365) return false;
            snprintf(out, 24, "P%.0fM", n * 12);
        } else {
            snprintf(out, 24, units[i].format, n);
        }
        *days = n * units[i].days;
        return true;
    }
    return false;
}

/* ---- currencies ---- */

bool value_currency(struct bytes text, bool chinese, char out[4]) {
    static const struct {
        const char *what, *code;
    } known[] = {
        {"hk", "HKD"},     {"hong kong", "HKD"}, {"港", "HKD"},       {"nt$", "TWD"},
        {"台币", "TWD"},   {"a$", "AUD"},        {"aud", "AUD"},      {"australian", "AUD"},
        {"c$", "CAD"},     {"cad", "CAD"},       {"canadian", "CAD"}, {"s$", "SGD"},
        {"sgd", "SGD"},    {"us", "USD"},        {"u.s", "USD"},      {"united states", "USD"},
        {"美", "USD"},     {"$", "USD"},         {"dollar", "USD"},   {"eur", "EUR"},
        {"€", "EUR"},      {"欧", "EUR"},        {"gbp", "GBP"},      {"£", "GBP"},
        {"pound", "GBP"},  {"英镑", "GBP"},      {"chf", "CHF"},      {"swiss", "CHF"},
        {"jpy", "JPY"},    {"日元", "JPY"},      {"yen", "JPY"},      {"japanese", "JPY"},
        {"rmb", "CNY"},    {"cny", "CNY"},       {"renminbi", "CNY"}, {"yuan", "CNY"},
        {"人民币", "CNY"}, {"元", "CNY"},        {"圆", "CNY"}};
    const char *code = NULL;
    if (text.len == 0) return false;
    if (has(text, "¥") || has(text, "￥")) code = chinese ? "CNY" : "JPY";
    for (size_t i = 0; !code && i < sizeof known / sizeof *known; i++)
        if (starts(text, known[i].what)) code = known[i].code;
    if (!code) return false;
    memcpy(out, code, 4);
    return true;
}
