/**
 * AngularJS 1.8: documents in scopes, and inputs that are bound to a place in a document.
 *
 * However many changes come, there is one digest for each animation frame at most, and none for what is changed
 * in a digest anyway.
 *
 * Values are frozen. `ng-repeat` writes `$$hashKey` into objects that it has no other name for, which throws: say
 * `track by`, or repeat over `list | concordCopies`.
 */
import type { IAngularStatic, IAttributes, ICompileService, IModule, INgModelController, IRootScopeService, IScope } from "angular";

import type { Client } from "../client/client.js";
import type { DocumentHandle } from "../client/document.js";
import type { Frozen } from "../value/types.js";
import type { Prop } from "../wasm.js";
import { type ReadableDocument, type Store, valueStore } from "./store.js";

/**
 * Where the client comes from: itself, what becomes it, or a function that makes it when it is first asked for.
 *
 * @example
 * const source: ClientSource = () => connect({ url: "wss://example.org/sync" });
 */
export type ClientSource = Client | PromiseLike<Client> | (() => Client | PromiseLike<Client>);

/**
 * `concordProvider`, for `config` blocks.
 *
 * @example
 * app.config((concordProvider: ConcordProvider) => {
 *   concordProvider.connect(() => connect({ url: "wss://example.org/sync" }));
 * });
 */
export interface ConcordProvider {
  connect(source: ClientSource): void;
}

/**
 * The service `concord`.
 *
 * @example
 * app.controller("Board", ($scope: IScope, concord: ConcordService) => {
 *   concord.open<Board>($scope, url, (handle) => concord.bind($scope, "board", handle));
 * });
 */
export interface ConcordService {
  /** The client that the provider was given. */
  client(): Promise<Client>;
  /** Opens a document for as long as the scope is there, and digests once it has something to show. */
  open<T>(scope: IScope, idOrUrl: string, then: (handle: DocumentHandle<T>) => void): Promise<void>;
  /**
   * Keeps `scope[name]` at what a document, or a store of one, is. Ends with the scope, or by what it returns.
   *
   * @example
   * concord.bind($scope, "board", handle);
   * concord.bind($scope, "title", select(handle, (value) => value.title));
   * concord.bind($scope, "status", statusStore(handle));
   */
  bind<T>(scope: IScope, name: string, source: ReadableDocument<T> | Store<T>): () => void;
}

/** A digest waits for an animation frame; where none comes, because nobody sees the page, for so long. Milliseconds. */
const LONGEST_FRAME_MS = 100;

/**
 * Makes the module `concord`: its provider, service, directive and filter. Gives its name; AngularJS itself is
 * handed in, so that it may as well come from a script tag.
 *
 * The directive `concord-model` binds an input to a place in a document, by a handle and a path:
 * `<input concord-model="handle" concord-path="['meetings', meeting.id, 'date']">`. Reading is always of what the
 * document is; writing is an ordinary assignment in a change of its own, as often as `ng-model-options` says. What
 * is being typed and not written yet is not replaced by what others write. Invalid input is not written, and stays
 * until somebody writes there.
 *
 * The filter `concordCopies` gives copies of objects one level deep, the same ones as long as the objects are:
 * what AngularJS and the page write on them is not in the document.
 *
 * @example
 * import angular from "angular";
 * angular.module("app", [concordModule(angular)]);
 */
export function concordModule(angular: IAngularStatic): "concord" {
  const name = "concord";
  if (!isMade(angular, name)) {
    angular
      .module(name, [])
      .provider("concord", provider)
      .directive("concordModel", ["$compile", "concord", "$exceptionHandler", modelDirective])
      .filter("concordCopies", () => copies);
  }
  return name;
}

function isMade(angular: IAngularStatic, name: string): boolean {
  try {
    const there: IModule = angular.module(name);
    return there.name === name;
  } catch {
    return false;
  }
}

function provider(): ConcordProvider & { $get: unknown } {
  let source: ClientSource | undefined;
  return {
    connect: (from) => {
      source = from;
    },
    $get: ["$rootScope", ($rootScope: IRootScopeService) => service($rootScope, () => source)],
  };
}

function service($rootScope: IRootScopeService, source: () => ClientSource | undefined): ConcordService {
  let client: Promise<Client> | undefined;
  const digests = new Digests($rootScope);
  const getClient = (): Promise<Client> => {
    client ??= (async () => {
      const from = source();
      if (from === undefined) {
        throw new Error("concordProvider.connect was not called");
      }
      return typeof from === "function" ? from() : from;
    })();
    return client;
  };
  return {
    client: getClient,
    open: async <T>(scope: IScope, idOrUrl: string, then: (handle: DocumentHandle<T>) => void) => {
      const opened = await getClient();
      if (isDestroyed(scope)) {
        return;
      }
      const handle = opened.open<T>(idOrUrl);
      scope.$on("$destroy", () => handle.close());
      try {
        await handle.whenReady();
      } catch (error) {
        if (!isDestroyed(scope)) {
          throw error;
        }
        return;
      }
      digests.request(() => {
        if (!isDestroyed(scope)) {
          then(handle);
        }
      });
    },
    bind: <T>(scope: IScope, name: string, from: ReadableDocument<T> | Store<T>) => {
      const store: Store<T | Frozen<T>> = "getSnapshot" in from ? from : valueStore(from);
      const write = (): void => {
        if (!isOver) {
          (scope as IScope & { [name: string]: unknown })[name] = store.getSnapshot();
        }
      };
      let isOver = false;
      write();
      const unsubscribe = store.subscribe(() => digests.request(write));
      const end = (): void => {
        isOver = true;
        unsubscribe();
        forget();
      };
      const forget = scope.$on("$destroy", end);
      return end;
    },
  };
}

/** Does things in digests; as few of them as can be. */
class Digests {
  readonly #rootScope: IRootScopeService;
  readonly #due = new Set<() => void>();

  constructor($rootScope: IRootScopeService) {
    this.#rootScope = $rootScope;
  }

  /** Does it soon, once for all requests until then; at once in a digest that is running already. */
  request(work: () => void): void {
    if (this.#rootScope.$$phase) {
      work();
      return;
    }
    const isFirst = this.#due.size === 0;
    this.#due.add(work);
    if (isFirst) {
      let isDone = false;
      const run = (): void => {
        if (!isDone) {
          isDone = true;
          this.#rootScope.$applyAsync(() => {
            const due = [...this.#due];
            this.#due.clear();
            for (const one of due) {
              one();
            }
          });
        }
      };
      requestAnimationFrame(run);
      setTimeout(run, LONGEST_FRAME_MS);
    }
  }
}

function isDestroyed(scope: IScope): boolean {
  return (scope as IScope & { $$destroyed?: boolean }).$$destroyed === true;
}

type ModelScope = IScope & { $concordModel?: { value: unknown } };

/** More than any directive of inputs, and less than `ng-if` and `ng-repeat`, which may be on the same element. */
const MODEL_PRIORITY = 500;

/** Leaves all that an input does to `ng-model`, over a property that reads and writes the document. */
function modelDirective($compile: ICompileService, concord: ConcordService, $exceptionHandler: (error: unknown) => void): object {
  return {
    restrict: "A",
    priority: MODEL_PRIORITY,
    terminal: true,
    scope: true,
    compile: (element: JQLite, attributes: IAttributes) => {
      element.attr("ng-model", "$concordModel.value");
      const expressions = { handle: String(attributes["concordModel"]), path: String(attributes["concordPath"] ?? "[]") };
      return (scope: ModelScope, linked: JQLite) => {
        const model = new Model(scope, expressions, $exceptionHandler);
        scope.$concordModel = model;
        // Whatever else shows the document: it is the document's changes that digest.
        scope.$watch(expressions.handle, (handle: ModelDocument | undefined) => {
          model.follow(handle, concord);
        });
        $compile(linked, undefined, MODEL_PRIORITY)(scope);
        model.controller = linked.controller("ngModel") as unknown as INgModelController;
      };
    },
  };
}

type ModelDocument = Pick<DocumentHandle<unknown>, "value" | "subscribe" | "change">;

class Model {
  controller: INgModelController | undefined;
  readonly #scope: IScope;
  readonly #expressions: { readonly handle: string; readonly path: string };
  readonly #fail: (error: unknown) => void;
  #shown: unknown;
  /** The input is invalid, and this is what the document had when it became so. */
  #invalid: { readonly instead: unknown } | undefined;
  #end: (() => void) | undefined;

  constructor(scope: IScope, expressions: { handle: string; path: string }, fail: (error: unknown) => void) {
    this.#scope = scope;
    this.#expressions = expressions;
    this.#fail = fail;
  }

  get value(): unknown {
    const there = this.#read();
    if (this.#invalid !== undefined && this.#invalid.instead !== there) {
      this.#invalid = undefined;
    }
    if (!this.#isTyping) {
      this.#shown = this.#invalid === undefined ? there : undefined;
    }
    return this.#shown;
  }

  /** `ng-model` says that something is invalid by undefined, which documents do not have. */
  set value(value: unknown) {
    const path = this.#path;
    const last = path.at(-1);
    const there = this.#read();
    this.#invalid = value === undefined ? { instead: there } : undefined;
    if (value === undefined || last === undefined || value === there) {
      return;
    }
    try {
      this.#handle?.change((draft) => {
        const parent = path.slice(0, -1).reduce<unknown>((at, prop) => Reflect.get(at as object, prop), draft);
        (parent as { [prop: Prop]: unknown })[last] = value;
      });
    } catch (error) {
      this.#fail(error);
    }
    this.#shown = value;
  }

  follow(handle: ModelDocument | undefined, concord: ConcordService): void {
    this.#end?.();
    this.#end = handle === undefined ? undefined : concord.bind(this.#scope, "$concordValue", handle);
  }

  #read(): unknown {
    return this.#path.reduce<unknown>(
      (at, prop) => (typeof at === "object" && at !== null && Object.hasOwn(at, prop) ? Reflect.get(at, prop) : undefined),
      this.#handle?.value,
    );
  }

  get #handle(): ModelDocument | undefined {
    return this.#scope.$eval(this.#expressions.handle) as ModelDocument | undefined;
  }

  get #path(): readonly Prop[] {
    return (this.#scope.$eval(this.#expressions.path) as readonly Prop[] | undefined) ?? [];
  }

  /** Whether something was typed that `ng-model-options` hold back. Before the first rendering both are nothing. */
  get #isTyping(): boolean {
    const controller = this.controller as (INgModelController & { $$lastCommittedViewValue?: unknown }) | undefined;
    const typed: unknown = controller?.$viewValue;
    return controller !== undefined && !Number.isNaN(typed) && typed !== controller.$$lastCommittedViewValue;
  }
}

/** Frozen object to the one copy of it. */
const copied = new WeakMap<object, object>();

function copies(value: unknown): unknown {
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const items = Array.isArray(value) ? value.map(copyOf) : Object.entries(value).map(([key, item]) => [key, copyOf(item)]);
  return Array.isArray(value) ? items : Object.fromEntries(items as [string, unknown][]);
}

function copyOf(item: unknown): unknown {
  if (typeof item !== "object" || item === null || Object.getPrototypeOf(item) !== Object.prototype) {
    return item;
  }
  let copy = copied.get(item);
  if (copy === undefined) {
    copy = { ...item };
    copied.set(item, copy);
  }
  return copy;
}
