/** Stands in for `@concord/client/codemirror` until the package has it: an editor of one text, without carets. */
import { type DocumentHandle, type Prop, splice } from "@concord/client";
import { Annotation, type Extension } from "@codemirror/state";
import { type EditorView, ViewPlugin, type ViewUpdate } from "@codemirror/view";

const fromDocument = Annotation.define<true>();

export function collaborate<T extends object>(handle: DocumentHandle<T>, path: readonly Prop[], _options: { presence?: unknown } = {}): Extension {
  const read = (): string | undefined => {
    const value = path.reduce<unknown>((node, key) => (node as { [key: Prop]: unknown } | undefined)?.[key], handle.value);
    return typeof value === "string" ? value : undefined;
  };
  return ViewPlugin.fromClass(
    class {
      readonly #end: () => void;

      constructor(view: EditorView) {
        this.#end = handle.subscribe(() => this.#show(view));
        queueMicrotask(() => this.#show(view));
      }

      update(update: ViewUpdate): void {
        if (!update.docChanged || update.transactions.some((one) => one.annotation(fromDocument) === true)) {
          return;
        }
        handle.change((draft) => {
          let shift = 0;
          update.changes.iterChanges((from, to, _from, _to, inserted) => {
            const text = inserted.toString();
            splice(draft, path, from + shift, to - from, text);
            shift += text.length - (to - from);
          });
        });
      }

      destroy(): void {
        this.#end();
      }

      #show(view: EditorView): void {
        const shown = view.state.doc.toString();
        const text = read();
        if (text === undefined || text === shown) {
          return;
        }
        const most = Math.min(text.length, shown.length);
        let start = 0;
        while (start < most && text[start] === shown[start]) {
          start += 1;
        }
        let end = 0;
        while (end < most - start && text[text.length - 1 - end] === shown[shown.length - 1 - end]) {
          end += 1;
        }
        const changes = { from: start, to: shown.length - end, insert: text.slice(start, text.length - end) };
        view.dispatch({ changes, annotations: fromDocument.of(true) });
      }
    },
  );
}
