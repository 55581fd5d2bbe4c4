/* data_inspect.h: cria data inspect. */
#ifndef CRIA_CLI_DATA_INSPECT_H
#define CRIA_CLI_DATA_INSPECT_H

#include "base/base.h"

/* [--eod ID] [--vocab N] [--format F] PATH...: reads every token and prints what each file holds.
 */
Status inspect_command(int argc, char **argv);

#endif
