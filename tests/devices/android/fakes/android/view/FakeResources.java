package android.view;

import android.content.Context;
import android.widget.TextView;
import java.io.File;
import java.lang.reflect.Field;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;
import org.w3c.dom.Node;
import org.w3c.dom.NodeList;

/** Reads the app's own resources, by the numbers that aapt2 gave them. */
public final class FakeResources {
  private static final String R = "ai.molkv.demo.R$";

  private FakeResources() {}

  public static String text(int id) {
    String name = name("string", id);
    NodeList texts = document("values/strings.xml").getElementsByTagName("string");
    for (int i = 0; i < texts.getLength(); i++) {
      Element text = (Element) texts.item(i);
      if (text.getAttribute("name").equals(name)) {
        return text.getTextContent().replace("\\'", "'").replace("\\n", "\n");
      }
    }
    throw new IllegalStateException("there is no text " + name);
  }

  public static ViewGroup inflate(Context context, int layout) {
    return (ViewGroup) make(context, document("layout/" + name("layout", layout) + ".xml"));
  }

  private static View make(Context context, Element element) {
    try {
      View view =
          (View)
              Class.forName("android.widget." + element.getTagName())
                  .getConstructor(Context.class)
                  .newInstance(context);
      String id = element.getAttribute("android:id");
      if (!id.isEmpty()) view.setId(number("id", id.replace("@+id/", "")));
      if (view instanceof TextView) {
        ((TextView) view).setText(resolved(element.getAttribute("android:text")));
        ((TextView) view).setHint(resolved(element.getAttribute("android:hint")));
      }
      view.setContentDescription(resolved(element.getAttribute("android:contentDescription")));
      if (element.getAttribute("android:visibility").equals("gone")) view.setVisibility(View.GONE);
      for (Node child = element.getFirstChild(); child != null; child = child.getNextSibling()) {
        if (child instanceof Element) ((ViewGroup) view).addView(make(context, (Element) child));
      }
      return view;
    } catch (ReflectiveOperationException error) {
      throw new IllegalStateException(element.getTagName(), error);
    }
  }

  private static String resolved(String value) {
    return value.startsWith("@string/") ? text(number("string", value.substring(8))) : value;
  }

  private static Element document(String file) {
    try {
      File path = new File(System.getProperty("molkv.app.resources"), file);
      return DocumentBuilderFactory.newInstance()
          .newDocumentBuilder()
          .parse(path)
          .getDocumentElement();
    } catch (Exception error) {
      throw new IllegalStateException(file, error);
    }
  }

  private static String name(String kind, int id) {
    try {
      for (Field field : Class.forName(R + kind).getFields()) {
        if (field.getInt(null) == id) return field.getName();
      }
    } catch (ReflectiveOperationException error) {
      throw new IllegalStateException(error);
    }
    throw new IllegalStateException("no " + kind + " has the number " + id);
  }

  private static int number(String kind, String name) {
    try {
      return Class.forName(R + kind).getField(name).getInt(null);
    } catch (ReflectiveOperationException error) {
      throw new IllegalStateException(name, error);
    }
  }
}
