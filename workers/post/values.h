/* values.h - what an entity is worth in a form that can be compared: ISO 8601 dates and durations,
 * amounts with their currency, percentages.
 *
 * Units: in the names.  Owner, memory: none.  Errors: false for what cannot be (a 30th of February,
 * an unknown currency).  Threads: any. */
#ifndef PENSTOCK_WORKERS_POST_VALUES_H
#define PENSTOCK_WORKERS_POST_VALUES_H

#include <stdbool.h>

#include "base/bytes.h"

/* year, month and day as they stand in the text, in figures or words; day may be absent. Two-digit
 * years are of 1970 to 2069. out: "2026-03-02" or "2026-03". */
bool value_date(struct bytes year, struct bytes month, struct bytes day, char out[16]);

/* unit: days, business day, weeks, months, quarters, years, hours, minutes, or 日 天 周 个月 季度 年
 * 小时 工作日 and so on. out: "P30D"; days: its length, a month counted as 30, a year as 365. */
bool value_duration(double number, struct bytes unit, char out[24], double *days, bool *business);

/* "US$", "dollars", "人民币", "￥"... to an ISO 4217 code. The yen sign stands for CNY in a Chinese
 * text and for JPY in an English one. */
bool value_currency(struct bytes text, bool chinese, char out[4]);

#endif
