/* known_templates.c: templates by name. */
#include "chat_template/chat_template.h"

#include <string.h>

typedef struct known_template {
    const char *name, *source;
} known_template;

static const known_template known[] = {
#define CHAT_TEMPLATE(name, source) {name, source},
#include "chat_template/known_templates.inc"
#undef CHAT_TEMPLATE
};

bool pi2_chat_template_is_blank(const char *source, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (source[i] != ' ' && (source[i] < '\t' || source[i] > '\r')) return false;
    return true;
}

const char *pi2_chat_template_named(const char *name) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].source;
    return NULL;
}

const char *pi2_chat_template_name(size_t index) {
    return index < sizeof known / sizeof known[0] ? known[index].name : NULL;
}
