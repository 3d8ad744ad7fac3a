//! Components: engine, instances, limits, grants, compilation. Knows no mechanism.
