// A page of AngularJS for the tests of the bindings. Counts digests.

import angular from "angular";

import { concordModule } from "@concord/client/angularjs";
import { select, statusStore } from "@concord/client/store";

/** Starts an application with this template; the document is `handle` and `board` in its scope. */
export async function start(client, url, template) {
  const page = { digests: 0, faults: [] };
  const app = angular.module("app", [concordModule(angular), concordModule(angular)]);
  app.config((concordProvider) => concordProvider.connect(() => Promise.resolve(client)));
  app.config(($provide) => $provide.value("$exceptionHandler", (error) => page.faults.push(String(error))));
  app.run(($rootScope) => {
    const digest = $rootScope.$digest;
    $rootScope.$digest = function () {
      page.digests += 1;
      return digest.call(this);
    };
  });
  const root = document.getElementById("show");
  root.innerHTML = template;
  const injector = angular.bootstrap(root, ["app"]);
  const concord = injector.get("concord");
  page.concord = concord;
  page.scope = injector.get("$rootScope").$new();
  page.scope.shown = true;
  await new Promise((ready, failed) => {
    concord
      .open(page.scope, url, (handle) => {
        page.scope.handle = handle;
        injector.get("$rootScope").handle = handle;
        page.unbind = concord.bind(injector.get("$rootScope"), "board", handle);
        concord.bind(page.scope, "board", handle);
        concord.bind(page.scope, "title", select(handle, (value) => value.title));
        concord.bind(page.scope, "status", statusStore(handle));
        window.doc = handle;
        ready();
      })
      .catch(failed);
  });
  page.root = injector.get("$rootScope");
  return page;
}
