"""Plots and diagrams, as SVG for a page and as files of their own.

Every drawing has ``svg`` (to embed in a page: it takes the page's text color and font), ``standalone_svg`` and ``png``:
plots of numbers are `effnet.draw.plotting.RenderedPlot`, drawn by matplotlib; networks and blocks are
`effnet.draw.diagram.Diagram`, made of boxes, lines and texts.
"""
