package stream

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// naming makes URLs from a SegmentTemplate (ISO/IEC 23009-1 section 5.3.9.4.4) over one base.
type naming struct {
	base  *url.URL
	media string // template with $Number$ and $Time$ left
	init  *Resource
}

func (n naming) segment(number, time uint64) string {
	name, _ := expand(n.media, map[string]uint64{"Number": number, "Time": time}, nil)
	u, err := n.base.Parse(name)
	if err != nil {
		return n.base.String() // parseDASH has tried the template out: this is not reached
	}
	return u.String()
}

// expand replaces $Name$ and $Name%0[width]d$; words are the identifiers without a width. Identifiers that are in
// neither map are left as they are, for a later round.
func expand(template string, numbers map[string]uint64, words map[string]string) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(template, '$')
		if i < 0 {
			b.WriteString(template)
			return b.String(), nil
		}
		b.WriteString(template[:i])
		template = template[i+1:]
		j := strings.IndexByte(template, '$')
		if j < 0 {
			return "", fmt.Errorf("segment template: %w: a $ without its end", ErrMalformed)
		}
		tag := template[:j]
		template = template[j+1:]
		name, format, formatted := strings.Cut(tag, "%")
		n, isNumber := numbers[name]
		w, isWord := words[name]
		switch {
		case tag == "":
			if words != nil { // the first round keeps $$ for the second, which writes $
				b.WriteString("$$")
			} else {
				b.WriteByte('$')
			}
		case isNumber:
			width := 1
			if formatted {
				digits, ok := strings.CutSuffix(format, "d")
				v, err := strconv.Atoi(digits)
				if !ok || !strings.HasPrefix(format, "0") || err != nil || v < 0 || v > 40 {
					return "", fmt.Errorf("segment template: %w: width %q of $%s$", ErrMalformed, clip(format), name)
				}
				width = v
			}
			fmt.Fprintf(&b, "%0*d", width, n)
		case isWord && !formatted:
			b.WriteString(w)
		case name == "Number" || name == "Time":
			b.WriteString("$" + tag + "$")
		default:
			return "", fmt.Errorf("segment template: %w: identifier $%s$", ErrUnsupported, clip(tag))
		}
	}
}
