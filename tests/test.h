/* test.h: what every cmocka program includes first. */
#ifndef CRIA_TEST_H
#define CRIA_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* The expression returns OK; otherwise the message is printed. */
#define assert_status_ok(expr)                                                                     \
    do {                                                                                           \
        Status test_st_ = (expr);                                                                  \
        if (test_st_ != OK) fail_msg("%s: status %d: %s", #expr, test_st_, status_message());      \
    } while (0)

/* The expression fails with `code`, and the message contains `text`. Clears the message. */
#define assert_status_fails(expr, code, text)                                                      \
    do {                                                                                           \
        Status test_st_ = (expr);                                                                  \
        if (test_st_ != (code) || strstr(status_message(), (text)) == NULL)                        \
            fail_msg("%s: status %d, expected %d: \"%s\" should contain \"%s\"", #expr, test_st_,  \
                     (code), status_message(), (text));                                            \
        status_clear();                                                                            \
    } while (0)

#endif
