/* status.c - the names and meanings of statuses, from the list in samebits.h, and the message of a
 * failure. */
#include <stdarg.h>
#include <stdio.h>

#include "backend.h"

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

sb_status sb_fail(sb_message *message, sb_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message->text, sizeof message->text, format, args);
    va_end(args);
    return status;
}
