/* check.h: assertions of the programs that run under MPI or on GPUs, where cmocka's, which go on
 * after a failure, would leave other ranks waiting: the first failure is printed with rank and
 * place and ends the job. Test programs of one process use cmocka (test.h). */
#ifndef CRIA_TESTS_CHECK_H
#define CRIA_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

/* EXPECT(condition), or with a format and its arguments: what was found. */
#define EXPECT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "rank %d: %s:%d: %s: ", comm_world_rank(), __FILE__, __LINE__, #cond); \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fprintf(stderr, " %s\n", status_message());                                            \
            comm_abort(1);                                                                         \
        }                                                                                          \
    } while (0)
#define EXPECT_OK(call) EXPECT((call) == OK)
/* Integers; each is evaluated once. */
#define EXPECT_EQ(found, expected)                                                                 \
    do {                                                                                           \
        long long found_ = (long long)(found), expected_ = (long long)(expected);                  \
        EXPECT(found_ == expected_, "%s is %lld, expected %lld", #found, found_, expected_);       \
    } while (0)
#define EXPECT_BYTES(found, expected, n) EXPECT_EQ(memcmp(found, expected, (size_t)(n)), 0)
/* The call fails with `code`, and the message contains `text`. Clears the message. */
#define EXPECT_FAILS(call, code, text)                                                             \
    do {                                                                                           \
        Status st_ = (call);                                                                       \
        EXPECT(st_ == (code) && strstr(status_message(), text) != NULL,                            \
               "status %d, expected %d and \"%s\":", st_, code, text);                             \
        status_clear();                                                                            \
    } while (0)

#endif
