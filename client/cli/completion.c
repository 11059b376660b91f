/* penstock completion SHELL: what a shell has to read; penstock complete: what it then asks. */
#include <stdio.h>
#include <string.h>

#include "client/cli/complete.h"
#include "client/cli/plain.h"

/* Each hands the words behind the program's name, the last one unfinished, to `complete`, and falls
 * back to files where it offers nothing. */
static const struct {
    const char *shell, *script;
} scripts[] = {
    {"bash", "# bash completion for penstock: source it, or put it into\n"
             "# share/bash-completion/completions/penstock\n"
             "_penstock() {\n"
             "    local IFS=$'\\n'\n"
             "    COMPREPLY=($(\"${COMP_WORDS[0]}\" complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
             "2>/dev/null))\n"
             "}\n"
             "complete -o default -o bashdefault -F _penstock penstock\n"},
    {"zsh", "#compdef penstock\n"
            "# zsh completion for penstock: put it into a folder of $fpath as _penstock\n"
            "_penstock() {\n"
            "    local -a found\n"
            "    found=(${(f)\"$(${words[1]} complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
            "    if (( ${#found} )); then compadd -a found; else _files; fi\n"
            "}\n"
            "if [ \"$funcstack[1]\" = _penstock ]; then\n"
            "    _penstock \"$@\"\n"
            "else\n"
            "    compdef _penstock penstock\n"
            "fi\n"},
    {"fish", "# fish completion for penstock: put it into a completions folder as penstock.fish\n"
             "complete -c penstock -a '(penstock complete (commandline -opc)[2..-1] "
             "(commandline -ct) 2>/dev/null)'\n"},
};

int cli_verb_completion(int argc, char **argv) {
    static struct cli c;
    int code = plain_parse(&c, argc, argv, 1, "bash|zsh|fish",
                           "Print a script that completes the verbs, options, kinds and jobs of "
                           "this program in a shell: source <(penstock completion bash)");
    if (code != CLI_OK) return code;
    for (size_t i = 0; c.n && i < sizeof scripts / sizeof *scripts; i++) {
        if (strcmp(c.args[0], scripts[i].shell) != 0) continue;
        fputs(scripts[i].script, stdout);
        return CLI_OK;
    }
    return cli_usage("for which shell? penstock completion bash|zsh|fish");
}

/* Not of argp: the words are another command line's. */
int cli_verb_complete(int argc, char **argv) {
    complete_words(argv + 1, argc - 1);
    return CLI_OK;
}
