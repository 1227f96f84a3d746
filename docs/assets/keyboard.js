// What the theme leaves out for those who use a keyboard or a screen reader: the name of the search, and what scrolls.
document$.subscribe(() => {
  document.querySelector(".md-search").setAttribute("aria-label", "Search");
  for (const [what, name] of [[".md-typeset__scrollwrap", "Table"], [".jupyter-wrapper .highlight pre, .highlight-ipynb", "Code"]]) {
    for (const element of document.querySelectorAll(what)) {
      element.tabIndex = 0;
      element.setAttribute("role", "group");
      element.setAttribute("aria-label", name);
    }
  }
});
