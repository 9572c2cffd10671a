// Who looks: the token that goes with all that is asked, where the server has to know. It comes with the page's address,
// as `#token=TOKEN` or `#token=TOKEN/d/ID…`, or is typed, and is kept for this tab, until that is closed.

const KEY = "concord-token";

let token = sessionStorage.getItem(KEY);

/** Told, with the problem, when the server does not believe who looks. */
export const doubts = new EventTarget();

/** As headers of a request. */
export const headers = () => (token === null ? {} : { authorization: `Bearer ${token}` });

/** In an address, for what can't have headers. */
export function within(url) {
  if (token !== null) url.searchParams.set("token", token);
  return url;
}

/** Looks as somebody else from here on; as nobody, if it is empty. */
export function lookAs(other) {
  token = other.trim() === "" ? null : other.trim();
  if (token === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}

/** Takes the token out of the page's address, before that is read and can be copied; whether there was one. */
export function takeFromAddress() {
  const found = /^#token=([^/]*)(\/.*)?$/.exec(location.hash);
  if (found === null) return false;
  lookAs(found[1]);
  history.replaceState(null, "", `#${found[2] ?? "/"}`);
  return true;
}
