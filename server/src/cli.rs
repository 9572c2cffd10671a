//! The command line: what can be typed, and what each command calls.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use client::UsageError;
use terminal::escaped;

pub mod access;
pub mod changes;
pub mod client;
pub mod delete;
pub mod documents;
pub mod edit;
pub mod export;
pub mod files;
pub mod history;
pub mod inspect;
pub mod maintain;
pub mod offline;
pub mod record;
pub mod repair;
pub mod replay;
pub mod serve;
pub mod terminal;
pub mod token;
pub mod watch;

/// A collaborative data store: Automerge documents, relayed between clients and kept on disk.
#[derive(Debug, Parser)]
#[command(name = "concord", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, in the foreground, until SIGTERM or SIGINT (the default command).
    Serve(Box<serve::ServeArgs>),
    /// List the stored documents.
    List(documents::ListArgs),
    /// Print a document, or a part of it, as JSON: now, or as it was.
    Get(documents::GetArgs),
    /// Make a document of a JSON object, and print its id.
    Create(edit::CreateArgs),
    /// Bring what is at a path of a document to a value.
    Set(edit::SetArgs),
    /// Remove what is at a path of a document.
    Unset(edit::UnsetArgs),
    /// Carry out a JSON Patch or a merge patch on a document.
    Patch(edit::PatchArgs),
    /// Print a document's changes as they come.
    Watch(watch::WatchArgs),
    /// List a document's changes.
    ///
    /// In the order in which the server took them. TIME is when it did, in UTC; with ~ before it, what the author's clock
    /// said. HASH names the version that the change made, wherever one is asked for.
    History(history::HistoryArgs),
    /// Print what differs between two versions of a document.
    Diff(history::DiffArgs),
    /// Bring back what was in a document, by one change more.
    Restore(history::RestoreArgs),
    /// Make a new document with another's changes up to a version, and print its id.
    Fork(history::ForkArgs),
    /// Delete a document, for everybody and at once.
    ///
    /// It can be taken back for as long as it is kept (concord undelete). With --now it is erased, which can not: the command
    /// ends when no byte of it is in any file of the data directory, and exit status 0 says so.
    Delete(delete::DeleteArgs),
    /// Take back that a document was deleted, as long as it is kept.
    Undelete(delete::UndeleteArgs),
    /// Print what became of a deleted document: kept until when, purged, or erased; and who deleted it.
    Deletion(delete::DeletionArgs),
    /// Print who may do what with a document, or say so.
    Access(access::AccessArgs),
    /// Write documents to .automerge files.
    Export(export::ExportArgs),
    /// Read documents from .automerge files.
    Import(files::ImportArgs),
    /// Check every record's checksum and load every document.
    Verify(maintain::VerifyArgs),
    /// Write a document anew without the changes that would be refused today.
    Repair(repair::RepairArgs),
    /// Print what a change claims, and why it would be refused.
    InspectChange(inspect::InspectArgs),
    /// Replace documents' changes by snapshots, and erase what was purged.
    ///
    /// The bytes of purged documents are in the database's files until this has written them anew. It needs as much room
    /// on the disk as the documents that stay.
    Compact(maintain::MaintainArgs),
    /// Write what a server received for a document, with the order and times of arrival, to a file.
    Record(record::RecordArgs),
    /// Play a history again, here or through a server, and check that all come to the same: an editing trace, an
    /// .automerge file, a stored document, a recording.
    Replay(Box<replay::ReplayArgs>),
    /// Make keys and tokens: for development, and where there is no identity provider.
    Token(token::TokenArgs),
}

impl Cli {
    /// Runs the command that was typed; errors go to standard error.
    pub fn run(self) -> ExitCode {
        let command = self
            .command
            .unwrap_or_else(|| Command::Serve(Box::default()));
        let result = match command {
            Command::Serve(args) => serve::run(&args),
            Command::List(args) => documents::list(&args),
            Command::Get(args) => documents::get(&args),
            Command::Create(args) => edit::create(&args),
            Command::Set(args) => edit::set(&args),
            Command::Unset(args) => edit::unset(&args),
            Command::Patch(args) => edit::patch(&args),
            Command::Watch(args) => watch::watch(&args),
            Command::History(args) => history::history(&args),
            Command::Diff(args) => history::diff(&args),
            Command::Restore(args) => history::restore(&args),
            Command::Fork(args) => history::fork(&args),
            Command::Delete(args) => delete::delete(&args),
            Command::Undelete(args) => delete::undelete(&args),
            Command::Deletion(args) => delete::deletion(&args),
            Command::Access(args) => access::access(&args),
            Command::Export(args) => export::export(&args),
            Command::Import(args) => files::import(&args),
            Command::Verify(args) => maintain::verify(&args),
            Command::Repair(args) => repair::repair(&args),
            Command::InspectChange(args) => inspect::inspect(&args),
            Command::Compact(args) => maintain::compact(&args),
            Command::Record(args) => record::record(&args),
            Command::Replay(args) => replay::run(*args),
            Command::Token(args) => token::run(&args),
        };
        match result {
            Ok(code) => code,
            Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                // What is said of a document may be the document's own words.
                eprintln!("concord: {}", escaped(&format!("{error:#}")));
                match error.downcast_ref() {
                    Some(UsageError(_)) => ExitCode::from(2),
                    None => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// Whether nobody reads standard output any more, such as `head` that has enough: nothing else is written to bare.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = match error.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => error
            .downcast_ref::<serde_json::Error>()
            .and_then(serde_json::Error::io_error_kind),
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}
