/* py_fields.h - numbers with names: fields of a config or a state out of a dict, and tables of names. */
#ifndef GL_PY_FIELDS_H
#define GL_PY_FIELDS_H

#include "py_args.h"
#include "../rules/rule.h"

_Static_assert(GL_FIELDS_MAX <= 32, "one bit per field tells which were given");

/* What is being called, for messages: "Rule(\"glyder\", " up to the arguments. */
struct glpy_call {
    const char *format; /* with one %s for the name */
    const char *name;
};

/* What a dict holds, as a tuple of pairs; empty for NULL.  A number may be any object, whose __float__ can change the
 * dict: a tuple of our own keeps all of it alive, and as it was. */
PyObject *glpy_entries_of(PyObject *dict);

/* A float, or what turns into one; otherwise -1 and an exception that names the key. */
int glpy_read_number(const struct glpy_call *call, PyObject *key, PyObject *value, double *out);

/* Overwrites values[] by those in `dict` and tells which; every key must be a field, which accepts the number. */
int glpy_read_fields(const struct glpy_call *call, PyObject *dict, const struct gl_field *fields, int count,
                     double *values, uint32_t *seen);

/* Adds a name to a list that may already have failed; drops the list on failure. */
void glpy_add_name(PyObject **list, const char *name);

/* The tuple of a list, whose reference it takes; NULL for NULL. */
PyObject *glpy_tuple_from(PyObject *list);

#endif
