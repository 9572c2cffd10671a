//! Promise: documents are read and written as JSON, beside those who edit them live, and all merges.
//!
//! Every test runs the built server and speaks HTTP to it by a stock client. `story` has tabs and programs
//! write at the same time and looks at what became of each field; `values` holds JSON in against JSON out, and
//! views against a load of the stored bytes; `requests` has each status, header and problem that is documented.
//!
//! It can't pass by accident: the story demands that every value which is there in the end was written, and was not
//! written over by somebody who had seen it; and a world in which nothing was written at once is an error.

mod requests;
mod rest;
mod story;
mod values;
