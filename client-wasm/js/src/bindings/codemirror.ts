/**
 * CodeMirror 6: an editor and a text of a document follow each other.
 *
 * Always: the editor's text is the document's, but for `pending`: what the document has and the editor not yet.
 * What is typed goes into the document at once, one change for each transaction, moved over `pending`; what comes
 * from the document joins `pending`, and is dispatched in a microtask of its own, or after a composition that it
 * would disturb. Whenever lengths say that this does not hold any more, the document wins.
 */
import { Annotation, ChangeSet, type Extension, EditorState, Prec, StateEffect, StateField, type Text, Transaction } from "@codemirror/state";
import { Decoration, EditorView, keymap, logException, ViewPlugin, type PluginValue, type ViewUpdate } from "@codemirror/view";

import type { DocumentHandle, PatchesEvent, TextEdit } from "../client/document.js";
import type { Patch } from "../value/types.js";
import type { Prop } from "../wasm.js";
import { caretTheme, drawPeers, type Caret, type OwnCaret } from "./codemirror-carets.js";
import { isPath, minimalEdit, movedPath, readText, wholePairs } from "./text-sync.js";

/**
 * What an editor needs of a handle.
 *
 * @example
 * const handle: TextDocument = client.open(url);
 */
export type TextDocument = Pick<
  DocumentHandle<unknown>,
  "value" | "status" | "on" | "splice" | "cursor" | "position" | "presence" | "undo" | "redo"
>;

/**
 * How an editor takes part.
 *
 * @example
 * const options: CollaborateOptions = { presence: { name: "Ada", color: "#c2410c" } };
 */
export interface CollaborateOptions {
  /** How others see this editor's cursor; without it they do not. `color` is any of CSS's. */
  readonly presence?: { readonly name: string; readonly color: string };
}

/** Own cursor is told at most so often. Milliseconds. */
const TELL_AFTER_MS = 50;
/** An editor has taken over what was composed so long after the composition's end. Milliseconds. */
const COMPOSED_AFTER_MS = 100;

/**
 * Ties an editor to the text at `path`. The document wins over what the editor began with. An element of a list
 * is followed where it moves; a text that is replaced is read again; while there is none, or the document can't be
 * changed, the editor is read-only.
 *
 * Undo and redo (Mod-z, Mod-y, Mod-Shift-z) are the document's, and take back own changes only. Leave
 * CodeMirror's own `history()` out.
 *
 * @example
 * const handle = await client.open<{ notes: string }>(url).whenReady();
 * new EditorView({
 *   parent: document.body,
 *   extensions: [collaborate(handle, ["notes"], { presence: { name: "Ada", color: "#c2410c" } })],
 * });
 */
export function collaborate(handle: TextDocument, path: readonly Prop[], options: CollaborateOptions = {}): Extension {
  const locked = StateField.define<boolean>({
    create: () => isLocked(handle, path),
    update: (value, transaction) => transaction.effects.find((effect) => effect.is(setLocked))?.value ?? value,
    provide: (field) => EditorState.readOnly.from(field),
  });
  // Theirs even if there is nothing to undo: the browser would undo something else.
  const undo = ({ state }: EditorView): boolean => state.field(locked) || handle.undo() || true;
  const redo = ({ state }: EditorView): boolean => state.field(locked) || handle.redo() || true;
  return [
    locked,
    ViewPlugin.define((view) => new Collaboration(view, handle, path, options, locked), {
      decorations: (plugin) => plugin.decorations,
    }),
    // A transaction that could not be kept is not made.
    EditorState.changeFilter.of((transaction) => !transaction.startState.field(locked)),
    // A document's text is not in lines: "\r" is a letter like others, or positions would not be the same.
    EditorState.lineSeparator.of("\n"),
    EditorView.clipboardInputFilter.of((text) => text.replace(/\r\n?/g, "\n")),
    Prec.high(
      keymap.of([
        { key: "Mod-z", run: undo },
        { key: "Mod-y", run: redo },
        { key: "Mod-Shift-z", run: redo },
      ]),
    ),
    // Menus and phones have no keys.
    EditorView.domEventHandlers({
      beforeinput: (event, view) => {
        const isUndo = event.inputType === "historyUndo";
        const isOurs = isUndo || event.inputType === "historyRedo";
        if (isOurs) {
          event.preventDefault();
          (isUndo ? undo : redo)(view);
        }
        return isOurs;
      },
    }),
    caretTheme,
  ];
}

/**
 * Marks the transactions by which an editor follows the document, whoever changed that.
 *
 * @example
 * EditorView.updateListener.of((update) => {
 *   const isTyped = update.transactions.some((one) => one.docChanged && !one.annotation(fromDocument));
 * });
 */
export const fromDocument = Annotation.define<boolean>();

const setLocked = StateEffect.define<boolean>();

function isLocked(handle: TextDocument, path: readonly Prop[] | undefined): boolean {
  const { state, readOnly } = handle.status;
  return state !== "ready" || readOnly || readText(handle.value, path) === undefined;
}

/** See the module's comment. */
class Collaboration implements PluginValue {
  decorations = Decoration.none;
  readonly #view: EditorView;
  readonly #handle: TextDocument;
  readonly #options: CollaborateOptions;
  readonly #locked: StateField<boolean>;
  readonly #ends: (() => void)[];
  /** Where the text is now; nowhere once its place in a list is gone. */
  #path: readonly Prop[] | undefined;
  /** From the editor's text to the document's. */
  #pending: ChangeSet;
  /** The document's value that pending leads to. */
  #followed: unknown;
  /** Whether there was a text: what the editor shows until then is its own. */
  #wasThere = false;
  /** Own edits are being made, and were not told of yet: the next event is theirs. */
  #isMaking = false;
  /** Whether pending has to be found anew, from the texts themselves. */
  #isLost = false;
  #isDue = false;
  #peersAreDue = true;
  #told: OwnCaret | undefined;
  #telling: ReturnType<typeof setTimeout> | undefined;
  #isDestroyed = false;

  constructor(
    view: EditorView,
    handle: TextDocument,
    path: readonly Prop[],
    options: CollaborateOptions,
    locked: StateField<boolean>,
  ) {
    this.#view = view;
    this.#handle = handle;
    this.#path = path;
    this.#options = options;
    this.#locked = locked;
    this.#pending = ChangeSet.empty(view.state.doc.length);
    this.#resync();
    // Nothing else may tell that a composition ended, and the editor looks at it some time after.
    const composed = (): void => void setTimeout(() => this.#schedule(), COMPOSED_AFTER_MS);
    view.contentDOM.addEventListener("compositionend", composed);
    this.#ends = [
      () => view.contentDOM.removeEventListener("compositionend", composed),
      handle.on("patches", (event) => this.#changed(event)),
      handle.on("status", () => this.#schedule()),
      handle.presence.on("change", () => this.#drawSoon()),
    ];
    if (options.presence !== undefined) {
      handle.presence.set({ name: options.presence.name, color: options.presence.color });
    }
  }

  update(update: ViewUpdate): void {
    for (const transaction of update.transactions) {
      if (transaction.docChanged && transaction.annotation(fromDocument) !== true) {
        this.#typed(transaction);
      }
    }
    if (update.docChanged) {
      this.decorations = this.decorations.map(update.changes);
    }
    if (update.docChanged || update.selectionSet || update.focusChanged) {
      this.#tellSoon();
    }
    // A composition may have ended.
    if (!this.#pending.empty) {
      this.#schedule();
    }
  }

  destroy(): void {
    this.#isDestroyed = true;
    for (const end of this.#ends) {
      end();
    }
    clearTimeout(this.#telling);
    this.#tell(null);
  }

  /** A transaction that was made in the editor goes into the document. */
  #typed({ changes, startState }: Transaction): void {
    const path = this.#path;
    const text = readText(this.#handle.value, path);
    if (path === undefined || text === undefined || startState.field(this.#locked)) {
      this.#resyncLater();
      return;
    }
    if (this.#isLost || this.#handle.value !== this.#followed || text.length !== this.#pending.newLength) {
      this.#pending = between(startState.doc, text);
    }
    const mine = changes.map(this.#pending);
    this.#pending = this.#pending.map(changes, true);
    const { edits, isExact } = editsOf(mine, text);
    this.#isLost = false;
    this.#isMaking = true;
    try {
      this.#handle.splice(path, edits);
    } catch (error) {
      logException(startState, error, "concord");
    }
    // In a listener it is told of later, behind what that listener was told of.
    const isTold = !this.#isMaking;
    this.#isMaking = false;
    if (!isTold || !isExact) {
      this.#resyncLater();
    }
  }

  /** The document is another. */
  #changed({ patches, before, after }: PatchesEvent<unknown>): void {
    if (this.#isMaking) {
      this.#isMaking = false;
      this.#followed = after;
      return;
    }
    // Not what was there when this editor came, or what own edits in a listener were made on.
    let pending = before === this.#followed ? this.#pending : undefined;
    for (const patch of patches) {
      const path: readonly Prop[] | undefined = this.#path;
      if (path === undefined) {
        break;
      }
      if (patch.path.length > path.length && isPath(patch.path.slice(0, path.length), path)) {
        // What leads further is in something that the text embeds, and changes no letter.
        const isDeeper: boolean = patch.path.length > path.length + 1;
        pending = pending === undefined || isDeeper ? pending : follow(pending, patch);
      } else {
        const moved = movedPath(path, patch);
        if (moved !== path || (patch.action === "put" && isPath(patch.path, path.slice(0, patch.path.length)))) {
          pending = moved !== undefined && moved !== path ? pending : undefined;
          this.#path = moved;
          this.#tellSoon();
        }
      }
    }
    this.#followed = after;
    const text = readText(after, this.#path);
    if (pending === undefined || text === undefined || pending.newLength !== text.length) {
      this.#resyncLater();
    } else {
      this.#pending = pending;
      this.#wasThere = true;
      this.#schedule();
    }
    this.#drawSoon();
  }

  #resyncLater(): void {
    this.#isLost = true;
    this.#schedule();
  }

  /** Finds pending anew. */
  #resync(): void {
    this.#isLost = false;
    this.#followed = this.#handle.value;
    const { doc } = this.#view.state;
    const text = readText(this.#followed, this.#path);
    this.#wasThere ||= text !== undefined;
    this.#pending = this.#wasThere ? between(doc, text ?? "") : ChangeSet.empty(doc.length);
    this.#schedule();
  }

  #drawSoon(): void {
    this.#peersAreDue = true;
    this.#schedule();
  }

  /** Editors can't be changed while they change: so in a microtask, which comes before anything is painted. */
  #schedule(): void {
    if (!this.#isDue) {
      this.#isDue = true;
      queueMicrotask(() => {
        this.#isDue = false;
        if (!this.#isDestroyed) {
          this.#flush();
        }
      });
    }
  }

  /** Brings the editor to what the document is. */
  #flush(): void {
    const view = this.#view;
    if (this.#isLost) {
      this.#resync();
    }
    const lock = isLocked(this.#handle, this.#path);
    const effects = view.state.field(this.#locked) === lock ? [] : [setLocked.of(lock)];
    const changes = this.#pending;
    if (!changes.empty && this.#disturbs(changes)) {
      return;
    }
    if (!changes.empty || effects.length > 0) {
      this.#pending = ChangeSet.empty(changes.newLength);
      view.dispatch({
        changes,
        effects,
        annotations: [fromDocument.of(true), Transaction.remote.of(true), Transaction.addToHistory.of(false)],
        filter: false,
      });
    }
    if (this.#peersAreDue) {
      this.#peersAreDue = false;
      this.#draw();
    }
  }

  /** Whether changes are in a line that is being composed in: the input method would lose what it has. */
  #disturbs(changes: ChangeSet): boolean {
    const { state, composing } = this.#view;
    const { from, to } = state.doc.lineAt(state.selection.main.head);
    return composing && changes.touchesRange(from, to) !== false;
  }

  #draw(): void {
    const { state } = this.#view;
    const path = this.#path;
    const carets: Caret[] = [];
    if (path !== undefined && readText(this.#handle.value, path) !== undefined) {
      for (const { peer, state: told } of this.#handle.presence.peers) {
        const { caret } = told as { caret?: Partial<OwnCaret> | null };
        if (typeof caret === "object" && caret !== null && Array.isArray(caret.path) && isPath(caret.path, path)) {
          const head = this.#index(path, caret.head, state.doc);
          const anchor = this.#index(path, caret.anchor, state.doc);
          if (head !== undefined) {
            carets.push({ peer, name: told["name"], color: told["color"], head, anchor: anchor ?? head });
          }
        }
      }
    }
    const decorations = drawPeers(carets);
    if (decorations !== this.decorations) {
      this.decorations = decorations;
      this.#view.dispatch({ annotations: fromDocument.of(true) });
    }
  }

  /** Where somebody's cursor is here; it may be at a letter that did not come yet, or be nonsense. */
  #index(path: readonly Prop[], cursor: unknown, doc: Text): number | undefined {
    if (cursor === null) {
      return doc.length;
    }
    try {
      const index = typeof cursor === "string" ? this.#handle.position(path, cursor) : undefined;
      return index === undefined ? undefined : Math.min(index, doc.length);
    } catch {
      return undefined;
    }
  }

  #tellSoon(): void {
    if (this.#options.presence !== undefined) {
      this.#telling ??= setTimeout(() => {
        this.#telling = undefined;
        this.#tell(this.#caret());
      }, TELL_AFTER_MS);
    }
  }

  #tell(caret: OwnCaret | null): void {
    if (this.#options.presence === undefined || JSON.stringify(caret) === JSON.stringify(this.#told ?? null)) {
      return;
    }
    this.#told = caret ?? undefined;
    const { name, color } = this.#options.presence;
    // Whoever else closed the document in this tab took everything back.
    this.#handle.presence.set(this.#handle.presence.own === undefined ? { name, color, caret } : { caret });
  }

  /** Own cursor, as it stays where it is among the letters. */
  #caret(): OwnCaret | null {
    const path = this.#path;
    const text = readText(this.#handle.value, path);
    if (path === undefined || text === undefined || !this.#view.hasFocus) {
      return null;
    }
    const place = (position: number): string | null => {
      const index = this.#pending.mapPos(position);
      return index >= text.length ? null : this.#handle.cursor(path, index);
    };
    const { anchor, head } = this.#view.state.selection.main;
    try {
      return { path, anchor: place(anchor), head: place(head) };
    } catch {
      return null;
    }
  }
}

/** The one edit that makes a text read like another. */
function between(doc: Text, text: string): ChangeSet {
  const edit = minimalEdit(doc.toString(), text);
  return edit === undefined ? ChangeSet.empty(doc.length) : ChangeSet.of(edit, doc.length, "\n");
}

/** Edits in an order in which each has the positions that `changes` gives; last first. */
function editsOf(changes: ChangeSet, text: string): { readonly edits: readonly TextEdit[]; readonly isExact: boolean } {
  const edits: TextEdit[] = [];
  let isExact = true;
  changes.iterChanges((from, to, _from, _to, inserted) => {
    const asked = { index: from, remove: to - from, insert: inserted.toString() };
    const edit = wholePairs(text, asked);
    isExact &&= edit === asked;
    edits.unshift(edit);
  });
  return { edits, isExact };
}

/** `pending`, and then a patch in the text; nothing when the patch is of a kind that only reading anew can follow. */
function follow(pending: ChangeSet, patch: Patch): ChangeSet | undefined {
  const at = patch.path.at(-1);
  const length = pending.newLength;
  if (patch.action === "mark" || patch.action === "conflict") {
    return pending;
  }
  if (typeof at !== "number" || at > length) {
    return undefined;
  }
  if (patch.action === "splice") {
    return pending.compose(ChangeSet.of({ from: at, insert: patch.value }, length, "\n"));
  }
  if (patch.action === "del" && at + patch.length <= length) {
    return pending.compose(ChangeSet.of({ from: at, to: at + patch.length }, length));
  }
  return undefined;
}
