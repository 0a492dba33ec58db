/* cache_folder.h: where things lie that can be made again. */
#ifndef PI2_BASE_CACHE_FOLDER_H
#define PI2_BASE_CACHE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

/** The user's folder for this program, without a slash at its end; it may not exist yet. False: neither
 *  XDG_CACHE_HOME nor HOME is set, or its name is too long. Threads: any. */
bool pi2_cache_folder(char *path, size_t capacity);

/** Makes the folders that a path names before its last '/', as far as they are missing; what could not be made shows
 *  when the file is opened. Threads: any. */
void pi2_folders_make_above(const char *path);

#endif
