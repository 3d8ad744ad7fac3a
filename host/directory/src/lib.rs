//! Named subjects, versions, labels, edges and protected pointers.
