/* status.c - names and meanings of statuses, from the one list in samebits.h. */
#include "samebits.h"

#define SB_STATUS_CHECK(name, number, text) _Static_assert(name == number, #name);
SB_STATUSES(SB_STATUS_CHECK)

const char *sb_status_name(sb_status status)
{
    switch ((int)status) {
#define SB_STATUS_NAME(name, number, text)                                                         \
    case number: return #name;
        SB_STATUSES(SB_STATUS_NAME)
    default: return "unknown status";
    }
}

const char *sb_status_text(sb_status status)
{
    switch ((int)status) {
#define SB_STATUS_TEXT(name, number, text)                                                         \
    case number: return text;
        SB_STATUSES(SB_STATUS_TEXT)
    default: return "unknown status";
    }
}
