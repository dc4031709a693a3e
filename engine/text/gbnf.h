/* engine/text/gbnf.h - grammars in llama.cpp's notation (GBNF).
 *
 *     root   ::= "yes" | "no" | list
 *     list   ::= "[" word ("," word)* "]"      # a comment
 *     word   ::= [a-zA-Z_] [^\x00-\x20,\]]{0,20}
 *
 * The answer is a text of the rule `root`. A rule ends with its line, unless it is inside of
 * parentheses or the line ends with |. Names have letters, digits, - and _. Texts and classes know
 * the escapes \n \r \t \\ \" \[ \] \- \^ and \xHH \uHHHH \UHHHHHHHH, which are code points. One
 * character of any kind is a dot; * + ? {n} {n,} {n,m} repeat.
 *
 * Threads    none.
 * Errors     of grammar.h; sentences say line and column.
 */
#ifndef ENGINE_TEXT_GBNF_H
#define ENGINE_TEXT_GBNF_H

#include "engine/text/grammar.h"

int gbnf_compile(const char *text, size_t len, struct grammar **ret, struct why *why);

/* As a part of a larger grammar: its rule `root`. Names in it are its own. Errors: b->err. */
uint32_t gbnf_rules(struct expr_build *b, const char *text, size_t len);

#endif
