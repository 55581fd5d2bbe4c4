/* generate.h: `cria generate`: text from a trained model. */
#ifndef CRIA_CLI_GENERATE_H
#define CRIA_CLI_GENERATE_H

#include "base/base.h"

/* As given; NULL: not given. */
typedef struct {
    const char *model; /* a checkpoint, a run.dir or a Hugging Face directory */
    const char *prompt, *tokens, *temperature, *top_p, *seed, *tokenizer, *device;
    bool ids; /* the prompt and what is printed are token ids: no tokenizer is needed */
} GenerateArguments;

/* Prints the prompt and, token by token, what follows. ERR_USER when an argument is wrong, there is
 * no such model or tokenizer, the two do not fit each other, or the tokens do not fit the model. */
Status generate_command_run(const GenerateArguments *a);

#endif
