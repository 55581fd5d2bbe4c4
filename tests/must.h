/* must.h: for programs without cmocka, and what both kinds share. */
#ifndef CRIA_TESTS_MUST_H
#define CRIA_TESTS_MUST_H

#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, status_message());                \
            exit(3);                                                                               \
        }                                                                                          \
    } while (0)

#endif
